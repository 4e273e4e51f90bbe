"""Splits against brute force: a double loop over theses and sessions."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finseek.core.actions import Action
from finseek.core.errors import InputError
from finseek.core.sessions import Sessions
from finseek.theses import SplitOptions, Thesis, split_by_time, thesis_uid

START = date(2024, 1, 1)


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[Thesis], Sessions, SplitOptions]:
    days = sorted(draw(st.sets(st.integers(0, 80), min_size=8, max_size=60)))
    sessions = Sessions.of([START + timedelta(days=d) for d in days])
    dated = draw(st.sets(st.tuples(st.sampled_from("ABC"), st.integers(0, 80)), min_size=3, max_size=80))
    theses = [
        Thesis(thesis_uid(t, START + timedelta(days=d)), t, START + timedelta(days=d), "r", "s", Action.BUY, {}, None,
               None, None, "f", 0)
        for t, d in sorted(dated)
    ]  # fmt: skip
    train_end = draw(st.integers(20, 60))
    options = SplitOptions(
        train_end=START + timedelta(days=train_end),
        test_start=START + timedelta(days=train_end + draw(st.integers(1, 6))),
        validation_days=draw(st.integers(0, 20)),
        purge=draw(st.booleans()),
        label_horizon=draw(st.integers(0, 6)),
        embargo=draw(st.integers(0, 3)),
    )
    return theses, sessions, options


def brute_force(theses: list[Thesis], sessions: Sessions, options: SplitOptions) -> dict[str, set[str]]:
    """The words of the design, one after the other."""
    days: list[date] = sessions.dates.tolist()
    splits: dict[str, list[Thesis]] = {"train": [], "validation": [], "test": []}
    for thesis in theses:
        day = thesis.as_of_date
        if day not in days:
            continue
        if day >= options.test_start:
            splits["test"].append(thesis)
        elif day <= options.train_end:
            since = options.train_end - timedelta(days=options.validation_days)
            splits["validation" if since < day else "train"].append(thesis)
    names = list(splits)
    kept: dict[str, set[str]] = {}
    for place, name in enumerate(names):
        later = [t.as_of_date for other in names[place + 1 :] for t in splits[other]]
        kept[name] = set()
        for thesis in splits[name]:
            if later:
                first = days.index(min(later))
                here = days.index(thesis.as_of_date)
                reach = 1 + options.label_horizon if options.purge else 0
                if options.purge and here + reach >= first:
                    continue
                if options.embargo and here + reach + options.embargo >= first:
                    continue
            kept[name].add(thesis.uid)
    return kept


@settings(max_examples=400, deadline=None)
@given(corpora(), st.randoms())
def test_equals_brute_force_in_any_order(corpus: tuple[list[Thesis], Sessions, SplitOptions], random: object) -> None:
    theses, sessions, options = corpus
    expected = brute_force(theses, sessions, options)
    shuffled = list(theses)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    empty = [n for n in ("train", "test") if not expected[n]]
    if options.validation_days and not expected["validation"]:
        empty.append("validation")
    try:
        split = split_by_time(shuffled, sessions, options)
    except InputError:
        assert empty
        return
    assert not empty
    assert {n: {t.uid for t in getattr(split, n)} for n in expected} == expected
    assert split.certificate == split_by_time(theses, sessions, options).certificate
    inside = sum(map(len, expected.values()))
    assert inside + sum(map(len, split.dropped.values())) == len(theses)
    if options.purge:
        ordered = [n for n in ("train", "validation", "test") if expected[n]]
        by_uid = {t.uid: t for t in theses}
        for place, earlier in enumerate(ordered):
            for later in ordered[place + 1 :]:
                first = min(by_uid[uid].as_of_date for uid in expected[later])
                ends = sessions.label_end([by_uid[uid].as_of_date for uid in expected[earlier]], options.label_horizon)
                assert not np.isnat(ends).any()
                assert (ends < np.datetime64(first)).all()
        assert split.certificate["labels_disjoint"] is True
