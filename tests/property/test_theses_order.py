"""What is kept does not depend on how theses are spread over files, nor on their order within them."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from finseek.theses import read_theses

ROW = st.fixed_dictionaries({
    "ticker": st.sampled_from(["A", "B"]),
    "as_of_date": st.sampled_from(["2024-01-05", "20240105", "2024-01-08", "2024-02-30"]),
    "reasoning": st.sampled_from(["up", "down", ""]),
    "support": st.just("s"),
    "action": st.sampled_from(["BUY", "sell", "error"]),
})  # fmt: skip


def outcome(rows: list[dict[str, str]], cuts: int) -> tuple[object, ...]:
    with tempfile.TemporaryDirectory() as name:
        for place in range(cuts):
            content = b"\n".join(map(orjson.dumps, rows[place::cuts]))
            if content:
                (Path(name) / f"{place}.jsonl").write_bytes(content)
        theses, rejects = read_theses(Path(name))
    kept = {(t.uid, t.reasoning, t.action) for t in theses}
    assert len(kept) == len(theses) == len({t.uid for t in theses})
    assert len(theses) + len(rejects) == len(rows)
    return kept, Counter(reject.reason for reject in rejects)


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=14), st.randoms(), st.integers(1, 4))
def test_order_and_files_do_not_matter(rows: list[dict[str, str]], random: object, cuts: int) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert outcome(rows, 1) == outcome(shuffled, cuts)
