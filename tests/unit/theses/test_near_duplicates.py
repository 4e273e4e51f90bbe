from __future__ import annotations

import random
import re
from datetime import date
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest

from finseek.core.errors import ConfigError
from finseek.core.sessions import Sessions
from finseek.theses import (
    SplitOptions,
    load_theses,
    near_duplicates,
    read_theses,
    split_by_time,
    write_records,
    write_split,
)
from finseek.theses.near_duplicates import HASHES, minhash, rows_of_band, shingle_sets
from finseek.theses.split_files import ThesisKey
from finseek.theses.synthetic import generate_theses

WORDS = [f"w{i}" for i in range(400)]


@cache
def triples(text: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return frozenset(tuple(words[i : i + 3]) for i in range(max(len(words) - 2, 1)))


def exact(one: str, other: str) -> float:
    """Jaccard similarity of sets of word triples, written down as one reads it."""
    a, b = triples(one), triples(other)
    return len(a & b) / len(a | b)


def edited(text: str, share: float, rng: random.Random) -> str:
    words = text.split()
    return " ".join(rng.choice(WORDS) if rng.random() < share else word for word in words)


def test_equals_exact_jaccard_on_all_pairs() -> None:
    rng = random.Random(1)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(20, 120))) for _ in range(60)]
    texts += [edited(text, share, rng) for text in texts[:30] for share in (0.0, 0.02, 0.05, 0.1)]
    truth = {(i, j): exact(texts[i], texts[j]) for j in range(len(texts)) for i in range(j)}
    for threshold in (0.5, 0.8, 1.0):
        found = {(pair.first, pair.second): pair.jaccard for pair in near_duplicates(texts, threshold)}
        assert found == {pair: pytest.approx(s) for pair, s in truth.items() if s >= threshold}


def test_a_pair_comes_once() -> None:
    rng = random.Random(9)
    text = " ".join(rng.choices(WORDS, k=60))
    texts = [text] * 3 + [edited(text, 0.03, rng) for _ in range(20)] + [text]
    pairs = [pair[:2] for pair in near_duplicates(texts, 0.3)]
    assert len(set(pairs)) == len(pairs)
    assert {(0, 1), (0, 2), (1, 2), (0, 23)} <= set(pairs)
    assert all(first < second for first, second in pairs)


def test_only_between_groups() -> None:
    texts = ["a b c d e f"] * 4
    assert [pair[:2] for pair in near_duplicates(texts, 0.9, [0, 0, 1, 1])] == [(0, 2), (0, 3), (1, 2), (1, 3)]


def test_case_order_and_short_texts() -> None:
    assert near_duplicates(["A b, c!", "a B c"], 1.0)[0].jaccard == 1.0
    assert near_duplicates(["a b c", "c b a"], 0.01) == []
    assert near_duplicates(["", "", "…"], 0.01) == []
    assert [pair[:2] for pair in near_duplicates(["up", "up", "up up"], 1.0)] == [(0, 1)]


def test_signatures_estimate_the_similarity() -> None:
    rng = random.Random(2)
    for share in (0.01, 0.05, 0.2):
        text = " ".join(rng.choices(WORDS, k=300))
        other = edited(text, share, rng)
        one, two = minhash(shingle_sets([text, other]))
        assert abs((one == two).mean() - exact(text, other)) < 4 * np.sqrt(0.25 / HASHES)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_the_bands_miss_almost_nothing(threshold: float) -> None:
    rows = rows_of_band(threshold)
    assert (1 - threshold**rows) ** (HASHES // rows) <= 1e-5


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Theses of which every tenth of the test months copies one of January."""
    sessions = Sessions.of(np.arange("2024-01-01", "2024-07-01", dtype="M8[D]"))
    signal = np.random.default_rng(0).standard_normal((len(sessions), 1))
    theses = generate_theses(signal, sessions, ["T"], seed=3).theses
    rng = random.Random(4)
    theses = [
        msgspec.structs.replace(t, reasoning=" ".join(rng.choices(WORDS, k=80)), support="1. none") for t in theses
    ]
    for place in range(125, len(theses), 10):
        copy = edited(theses[place - 120].reasoning, 0.02, rng)
        theses[place] = msgspec.structs.replace(theses[place], reasoning=copy)
    write_records(tmp_path / "all.jsonl", theses)
    return tmp_path


CUTS = {"train_end": date(2024, 4, 30), "test_start": date(2024, 5, 1), "purge": False}


def test_the_purge_leaves_the_splits_disjoint(copied: Path) -> None:
    theses = load_theses(copied / "all.jsonl")
    plain = split_by_time(theses, None, SplitOptions(**CUTS))
    for threshold in (0.6, 0.8):
        split = split_by_time(theses, None, SplitOptions(**CUTS, near_duplicate_threshold=threshold))
        parts = [split.train, split.validation, split.test]
        for place, earlier in enumerate(parts):
            for later in parts[place + 1 :]:
                for one in earlier:
                    for two in later:
                        texts = (f"{t.reasoning}\n{t.support}" for t in (one, two))
                        assert exact(*texts) < threshold
        dropped = split.dropped["near_duplicate"]
        assert dropped
        assert split.test == plain.test
        assert len(dropped) == split.certificate["dropped"]["near_duplicate"]


def test_files_and_lists_agree(copied: Path) -> None:
    options = SplitOptions(**CUTS, near_duplicate_threshold=0.7)
    certificate = write_split(copied / "all.jsonl", copied / "split", None, options)
    assert certificate == split_by_time(load_theses(copied / "all.jsonl"), None, options).certificate


def test_without_texts_there_is_nothing_to_compare(copied: Path) -> None:
    keys = [ThesisKey(t.uid, t.ticker, t.as_of_date, t.action) for t in load_theses(copied / "all.jsonl")]
    with pytest.raises(ConfigError, match="compares texts"):
        split_by_time(keys, None, SplitOptions(**CUTS, near_duplicate_threshold=0.7))


@pytest.mark.realdata
def test_recall_and_precision_on_real_theses(real_theses: Path) -> None:
    """1,000 planted edited copies and 10,000 random pairs, at 0.8, against exact Jaccard."""
    rng = random.Random(5)
    theses, _ = read_theses(real_theses)
    texts = [thesis.reasoning for thesis in rng.sample(theses, 1000)]
    copies = [edited(text, rng.uniform(0, 0.12), rng) for text in texts]
    pairs = [(i, 1000 + i) for i in range(1000)]
    random_pairs = {tuple(sorted(rng.sample(range(2000), 2))) for _ in range(10_000)}
    everything = texts + copies
    truth = {pair for pair in {*pairs, *random_pairs} if exact(everything[pair[0]], everything[pair[1]]) >= 0.8}
    judged = {*pairs, *random_pairs}
    found = {(p.first, p.second) for p in near_duplicates(everything, 0.8)} & judged
    assert 200 < len(truth) < 900
    assert len(found & truth) >= 0.95 * len(truth)
    assert len(found & truth) >= 0.95 * len(found)
    assert found == truth
