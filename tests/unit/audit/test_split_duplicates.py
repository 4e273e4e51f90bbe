from __future__ import annotations

from datetime import date, timedelta

from finseek.audit.splits import near_duplicate_findings
from finseek.core.actions import Action
from finseek.theses import Thesis, thesis_uid


def make(n: int, text: str) -> Thesis:
    day = date(2024, 1, 1) + timedelta(days=n)
    return Thesis(thesis_uid("T", day), "T", day, text, "s", Action.BUY, {}, None, None, None, "f", 0)


def test_pairs_between_splits_are_named_and_counted() -> None:
    words = "the quick brown fox jumps over the lazy dog and runs away from it all day long".split()
    text, other = " ".join(words), " ".join(reversed(words))
    near = text.replace("long", "short")
    splits = {
        "train": [make(0, text), make(1, text), make(2, other)],
        "validation": [make(3, near)],
        "test": [make(4, other)],
    }
    found = near_duplicate_findings(splits, 0.7)
    assert found["counts"] == {"train/test": 1, "train/validation": 2}
    assert [pair["uids"] for pair in found["pairs"]] == [
        [splits["train"][2].uid, splits["test"][0].uid],
        [splits["train"][0].uid, splits["validation"][0].uid],
        [splits["train"][1].uid, splits["validation"][0].uid],
    ]
    assert found["pairs"][0]["jaccard"] == 1.0
    assert found["theses"] == 5


def test_a_corpus_of_one_text_is_counted_and_not_listed() -> None:
    splits = {
        "train": [make(n, "one text for all") for n in range(3000)],
        "test": [make(9999, "One text, for all!")] * 2000,
    }
    found = near_duplicate_findings(splits)
    assert found["counts"] == {"train/test": 6_000_000}
    assert len(found["pairs"]) == 1000
