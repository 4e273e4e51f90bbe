from __future__ import annotations

import json
from collections import Counter
from datetime import date, timedelta
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finseek.core.actions import Action
from finseek.core.errors import InputError
from finseek.core.sessions import Sessions
from finseek.theses import FoldOptions, Thesis, load_split, make_folds, thesis_uid, write_folds, write_records

START = date(2024, 1, 1)
DAYS = [START + timedelta(days=d) for d in range(120)]
SESSIONS = Sessions.of([d for d in DAYS if d.weekday() < 5])


def make(ticker: str, day: date) -> Thesis:
    return Thesis(thesis_uid(ticker, day), ticker, day, "r", "s", Action.BUY, {}, None, None, None, "f", 0)


THESES = [make(t, d) for d in SESSIONS.dates.tolist() for t in "AB"]


PLACES = SESSIONS.index([t.as_of_date for t in THESES]).tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["expanding", "rolling"]),
    st.integers(2, 6),
    st.integers(0, 6),
    st.integers(0, 3),
    st.booleans(),
    st.integers(10, 30),
)
def test_walk_forward_against_brute_force(
    scheme: str, n_folds: int, horizon: int, gap: int, purge: bool, first: int
) -> None:
    options = FoldOptions(
        scheme=scheme, n_folds=n_folds, label_horizon=horizon, gap=gap, purge=purge, min_train_sessions=first
    )
    if first <= (1 + horizon if purge else 0) + gap:
        with pytest.raises(InputError, match=r"fold 1 of .* has no training thesis"):
            make_folds(THESES, SESSIONS, options)
        return
    folds = make_folds(THESES, SESSIONS, options)
    tested = [t.uid for fold in folds for t in fold.test]
    assert tested == [t.uid for t in THESES[2 * first :]]
    for fold in folds:
        start = int(SESSIONS.index([fold.test[0].as_of_date])[0])
        dropped = (1 + horizon if purge else 0) + gap
        low = start - first if scheme == "rolling" else 0
        expected = [t.uid for t in THESES if low <= int(SESSIONS.index([t.as_of_date])[0]) < start - dropped]
        assert [t.uid for t in fold.train] == expected
        assert len(fold.train) + len(fold.test) + sum(map(len, fold.dropped.values())) == len(THESES)
        assert gap or "gap" not in fold.dropped
        assert purge or "purged" not in fold.dropped


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 7), st.integers(1, 3), st.integers(0, 5), st.integers(0, 4), st.booleans())
def test_combinatorial_against_brute_force(n: int, k: int, horizon: int, embargo: int, purge: bool) -> None:
    if k >= n:
        return
    options = FoldOptions(
        scheme="combinatorial", n_folds=n, n_test_folds=k, label_horizon=horizon, embargo=embargo, purge=purge
    )
    groups = [set(group.tolist()) for group in np.array_split(np.arange(len(SESSIONS)), n)]
    expected = []
    for chosen in combinations(groups, k):
        tested = set.union(*chosen)
        union = tested | {s + step for s in tested for step in range(1, horizon + 2)}
        ends = {s for s in tested if s + 1 not in tested}
        shadow = {s + step for s in ends for step in range(1, (horizon if purge else 0) + embargo + 1)}
        train = [
            thesis.uid
            for thesis, here in zip(THESES, PLACES, strict=True)
            if here not in tested
            and not (embargo and here in shadow)
            and not (purge and union & set(range(here + 1, here + 2 + horizon)))
        ]
        expected.append((train, [t.uid for t, here in zip(THESES, PLACES, strict=True) if here in tested]))
    if not all(train for train, _ in expected):
        with pytest.raises(InputError, match="has no training thesis"):
            make_folds(THESES, SESSIONS, options)
        return
    folds = make_folds(THESES, SESSIONS, options)
    assert [([t.uid for t in fold.train], [t.uid for t in fold.test]) for fold in folds] == expected
    counts = Counter(t.uid for fold in folds for t in fold.test)
    assert len(counts) == len(THESES)
    assert set(counts.values()) == {comb(n - 1, k - 1)}
    for fold in folds:
        assert len(fold.train) + len(fold.test) + sum(map(len, fold.dropped.values())) == len(THESES)
        assert embargo or "embargoed" not in fold.dropped
        assert purge or "purged" not in fold.dropped


def test_independent_of_the_order() -> None:
    options = FoldOptions(scheme="combinatorial", n_folds=4, n_test_folds=2)
    one = [fold.certificate for fold in make_folds(THESES, SESSIONS, options)]
    shuffled = [THESES[i] for i in np.random.default_rng(0).permutation(len(THESES))]
    assert [fold.certificate for fold in make_folds(shuffled, SESSIONS, options)] == one


def test_what_is_no_session_is_in_no_fold() -> None:
    saturday = make("A", date(2024, 1, 6))
    for fold in make_folds([*THESES, saturday], SESSIONS, FoldOptions(min_train_sessions=20)):
        assert fold.dropped["not_a_session"] == [saturday]


def test_folds_that_cannot_be_made() -> None:
    with pytest.raises(InputError, match="too few"):
        make_folds(THESES, SESSIONS, FoldOptions(min_train_sessions=84, n_folds=5))
    with pytest.raises(InputError, match="no training thesis"):
        make_folds(THESES, SESSIONS, FoldOptions(min_train_sessions=3, label_horizon=5))
    with pytest.raises(InputError, match="no thesis lies on a session"):
        make_folds([make("A", date(2024, 1, 6))], SESSIONS, FoldOptions())
    with pytest.raises(ValueError, match="leaves no training"):
        FoldOptions(scheme="combinatorial", n_folds=3, n_test_folds=3)


def test_files_hold_the_folds(tmp_path: Path) -> None:
    options = FoldOptions(scheme="combinatorial", n_folds=4, n_test_folds=2, embargo=1)
    shuffled = [THESES[i] for i in np.random.default_rng(0).permutation(len(THESES))]
    write_records(tmp_path / "all.jsonl", shuffled)
    certificates = write_folds(tmp_path / "all.jsonl", tmp_path / "folds", SESSIONS, options)
    folds = make_folds(shuffled, SESSIONS, options)
    assert certificates == [fold.certificate for fold in folds]
    assert sorted(path.name for path in (tmp_path / "folds").iterdir()) == [f"fold-0{n}" for n in range(1, 7)]
    for number, fold in enumerate(folds, 1):
        place = tmp_path / "folds" / f"fold-0{number}"
        assert (load_split(place / "train.parquet"), load_split(place / "test.parquet")) == (fold.train, fold.test)
        written = json.loads((place / "certificate.json").read_text())
        assert written == {"options": options.model_dump(mode="json"), **fold.certificate}
