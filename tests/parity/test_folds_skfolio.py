"""Combinatorial purged folds on groups of equal length against skfolio's, which `make_stats_skfolio.py` wrote."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest

from finseek.core.actions import Action
from finseek.core.sessions import Sessions
from finseek.theses import FoldOptions, make_folds

CASES = json.loads(Path(__file__).with_name("folds_skfolio.json").read_text())


@dataclass(frozen=True)
class Dated:
    uid: str
    as_of_date: date
    ticker: str = "A"
    action: Action = Action.HOLD


def test_the_published_counts_are_among_the_cases():
    counts = {(case["groups"], case["tested"]): (len(case["folds"]), case["paths"]) for case in CASES}
    assert counts[6, 2] == (15, 5)
    assert counts[10, 8] == (45, 36)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['groups']} of {case['tested']}, {case['purged']}")
def test_folds_agree_with_skfolio(case):
    """skfolio drops as many sessions behind a test block as before it: ours with an embargo of one."""
    days = [date(2024, 1, 1) + timedelta(i) for i in range(case["periods"])]
    theses = [Dated(str(i), day) for i, day in enumerate(days)]
    purge = case["purged"] > 0
    options = FoldOptions(
        scheme="combinatorial",
        n_folds=case["groups"],
        n_test_folds=case["tested"],
        purge=purge,
        label_horizon=max(case["purged"] - 1, 0),
        embargo=int(purge),
    )
    folds = make_folds(theses, Sessions.of(days), options)
    drawn = []
    for fold in folds:
        letters = {thesis.uid: "t" for thesis in fold.train} | {thesis.uid: "T" for thesis in fold.test}
        drawn.append("".join(letters.get(thesis.uid, "-") for thesis in theses))
    assert drawn == case["folds"]
    assert set(Counter(thesis.uid for fold in folds for thesis in fold.test).values()) == {case["paths"]}
