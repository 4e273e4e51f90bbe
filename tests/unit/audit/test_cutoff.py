from __future__ import annotations

from datetime import date

import pytest

from finseek.audit.cutoff import knowledge_gate, split_at_cutoff
from finseek.core.actions import Action
from finseek.evaluate import Prediction

ROWS = [Prediction("A", date(2025, 1, day), Action.BUY, Action.BUY, "scored") for day in range(1, 11)]


@pytest.mark.parametrize(
    ("cutoff", "pretrained", "gate", "inside", "after"),
    [
        (None, False, "green", 0, 10),
        (None, True, "red", None, None),
        (date(2024, 12, 31), True, "green", 0, 10),
        (date(2025, 1, 4), True, "amber", 4, 6),
        (date(2025, 1, 10), True, "red", 10, 0),
    ],
)
def test_the_gate(cutoff, pretrained, gate, inside, after):
    found = knowledge_gate(ROWS, cutoff, pretrained)
    assert (found["gate"], found["inside"], found["after"]) == (gate, inside, after)


def test_rows_are_split_at_the_cutoff_itself_inside():
    inside, after = split_at_cutoff(ROWS, date(2025, 1, 4))
    assert [row.as_of_date.day for row in inside] == [1, 2, 3, 4]
    assert inside + after == ROWS
