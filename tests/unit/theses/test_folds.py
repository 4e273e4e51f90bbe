from __future__ import annotations

from datetime import date, timedelta
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finseek.core.actions import Action
from finseek.core.errors import InputError
from finseek.core.sessions import Sessions
from finseek.theses import FoldOptions, Thesis, make_folds, thesis_uid

START = date(2024, 1, 1)
DAYS = [START + timedelta(days=d) for d in range(120)]
SESSIONS = Sessions.of([d for d in DAYS if d.weekday() < 5])


def make(ticker: str, day: date) -> Thesis:
    return Thesis(thesis_uid(ticker, day), ticker, day, "r", "s", Action.BUY, {}, None, None, None, "f", 0)


THESES = [make(t, d) for d in SESSIONS.dates.tolist() for t in "AB"]


def reach(thesis: Thesis, horizon: int) -> range:
    """Sessions on which the label of a thesis lives, by place."""
    here = int(SESSIONS.index([thesis.as_of_date])[0])
    return range(here + 1, here + 1 + horizon + 1)


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
    try:
        folds = make_folds(THESES, SESSIONS, options)
    except InputError:
        assert n - k < 2 or horizon + embargo > 5
        return
    assert len(folds) == comb(n, k)
    counts = dict.fromkeys((t.uid for t in THESES), 0)
    for fold in folds:
        for thesis in fold.test:
            counts[thesis.uid] += 1
        tested = set(SESSIONS.index([t.as_of_date for t in fold.test]).tolist())
        ends = {s for s in tested if s + 1 not in tested}
        union = tested | {s for t in fold.test for s in reach(t, horizon)}
        shadow = {s + step for s in ends for step in range(1, (horizon if purge else 0) + embargo + 1)}
        expected = []
        for thesis in THESES:
            here = int(SESSIONS.index([thesis.as_of_date])[0])
            if here in tested or (embargo and here in shadow):
                continue
            if purge and union & set(reach(thesis, horizon)):
                continue
            expected.append(thesis.uid)
        assert [t.uid for t in fold.train] == expected
        assert len(fold.train) + len(fold.test) + sum(map(len, fold.dropped.values())) == len(THESES)
        assert embargo or "embargoed" not in fold.dropped
        assert purge or "purged" not in fold.dropped
    assert set(counts.values()) == {comb(n - 1, k - 1)}


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
