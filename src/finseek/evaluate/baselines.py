"""Predictors that need no model, on the same rows: whoever cannot beat them has learned nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

from finseek.core.actions import ACTIONS, Action
from finseek.evaluate.records import Labelled, Prediction


def majority(rows: Sequence[Prediction], training: Iterable[Labelled]) -> list[Action | None]:
    """The most frequent action of the training split, for every row; of equals the first in the order of actions.

    Without training labels every row is None.
    """
    counted = Counter(label.action for label in training)
    most = max(ACTIONS, key=lambda action: counted[action]) if counted else None
    return [most] * len(rows)


def persistence(rows: Sequence[Prediction], history: Iterable[Labelled]) -> list[Action | None]:
    """The teacher's latest earlier action for the same ticker; None where there is none.

    Earlier means an as-of date before the row's own, out of ``history``, else the rows themselves: the teacher's
    action as of yesterday is known today. A row's own label may be what the market did since, which is not; so
    ``history`` is believed where both have a day.
    """
    known: dict[tuple[str, date], Action] = {(row.ticker, row.as_of_date): row.gt_action for row in rows}
    known |= {(label.ticker, label.as_of_date): label.action for label in history}
    dates: dict[str, list[date]] = {}
    for ticker, day in sorted(known):
        dates.setdefault(ticker, []).append(day)

    def latest(row: Prediction) -> Action | None:
        days = dates[row.ticker]
        place = bisect_left(days, row.as_of_date)
        return known[row.ticker, days[place - 1]] if place else None

    return [latest(row) for row in rows]


def random_shares(rows: Sequence[Prediction], training: Iterable[Labelled], seed: int) -> list[Action | None]:
    """Actions drawn by the shares that they have in the training split; None without it."""
    counted = Counter(label.action for label in training)
    if not counted:
        return [None] * len(rows)
    shares = np.array([counted[action] for action in ACTIONS]) / counted.total()
    drawn = np.random.default_rng(seed).choice(len(ACTIONS), size=len(rows), p=shares)
    return [ACTIONS[code] for code in drawn]


def sign_rule(values: NDArray[np.float64], sign: int) -> list[Action | None]:
    """BUY where sign x value is above zero, SELL below, HOLD at zero; None where the value is unknown.

    On a past return, sign 1 is momentum and sign -1 is reversal.
    """
    leaning = sign * values
    return [None if np.isnan(v) else Action.BUY if v > 0 else Action.SELL if v < 0 else Action.HOLD for v in leaning]
