"""Predictors to compare a model with, on the same rows: whoever cannot beat them has learned nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finseek.core.actions import ACTIONS, Action, Labelled
from finseek.core.errors import InputError
from finseek.evaluate.learned import Floats, feature_matrix, learned
from finseek.evaluate.records import Prediction

if TYPE_CHECKING:
    from finseek.market import Snapshots


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


NAMES = ("majority", "persistence", "random", "momentum", "reversal", "logistic", "gradient_boosting", "teacher")


def standard_baselines(
    rows: Sequence[Prediction],
    training: Sequence[Labelled],
    history: Sequence[Labelled],
    snapshots: Snapshots | None,
    *,
    names: Sequence[str] = NAMES,
    ticker: bool = True,
    last_actions: int = 0,
    seed: int = 0,
) -> tuple[dict[str, list[Action | None]], dict[str, str]]:
    """All baselines of the labels, on the same rows and with the same information as the prompt.

    Args:
        rows: the predictions to compare with; their own answers are not looked at.
        training: labels of the training split.
        history: all labels; only what is dated before a row is used for it.
        snapshots: as the prompt shows them; None leaves out what needs them.
        names: which baselines, of ``NAMES``.
        ticker: whether the prompt shows the ticker.
        last_actions: how many last actions the prompt shows.
        seed: of the random baseline and the trees.

    Returns:
        answers by name, in the order of the rows, and the reason for each baseline that could not be had.
    """
    keys = [(row.ticker, row.as_of_date) for row in rows]
    answers: dict[str, list[Action | None]] = {}
    absent: dict[str, str] = {}

    def past_return(name: str) -> Floats:
        assert snapshots is not None
        if name not in snapshots.features:
            raise InputError(f"the snapshot has no feature {name}: add it to prompt.snapshot.features")
        session = snapshots.prices.sessions.index([day for _, day in keys])
        column = np.array([snapshots.prices.column(ticker) for ticker, _ in keys])
        return np.where(session >= 0, snapshots.features[name][session, column], np.nan)

    def fitted(kind: str) -> list[Action | None]:
        assert snapshots is not None
        shown: dict[str, Any] = {"ticker": ticker, "last_actions": last_actions, "history": history}
        train = feature_matrix([(row.ticker, row.as_of_date) for row in training], snapshots, **shown)
        return learned(kind, train, [row.action for row in training], feature_matrix(keys, snapshots, **shown), seed)

    makers: dict[str, Callable[[], list[Action | None]]] = {
        "majority": lambda: majority(rows, training),
        "persistence": lambda: persistence(rows, history),
        "random": lambda: random_shares(rows, training, seed),
        "momentum": lambda: sign_rule(past_return("ret20"), 1),
        "reversal": lambda: sign_rule(past_return("ret5"), -1),
        "logistic": lambda: fitted("logistic"),
        "gradient_boosting": lambda: fitted("gradient_boosting"),
        "teacher": lambda: [row.gt_action for row in rows],
    }
    for name in names:
        if name not in makers:
            raise InputError(f"baseline {name!r} is none of {', '.join(makers)}")
        if snapshots is None and name in ("momentum", "reversal", "logistic", "gradient_boosting"):
            absent[name] = "there is no market snapshot"
            continue
        if not training and name in ("majority", "random", "logistic", "gradient_boosting"):
            absent[name] = "there are no labels to learn from"
            continue
        try:
            answers[name] = makers[name]()
        except InputError as error:
            absent[name] = str(error)
    return answers, absent
