"""Dated signals: the record, its file formats, and its place in a (session, ticker) grid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from finseek.core.actions import ACTIONS, Action, parse_action
from finseek.core.errors import InputError
from finseek.core.sessions import Dates, Sessions, as_days
from finseek.core.tables import read_table, to_date

Floats = NDArray[np.float64]
NO_SIGNAL = -128
_RANK = {action: action.rank for action in ACTIONS}
_PROBABILITIES = tuple(f"p_{action.lower()}" for action in ACTIONS)


class Signal(msgspec.Struct, frozen=True):
    """What was decided about one ticker as of the close of one session.

    Attributes:
        ticker: name of a column of the price table.
        as_of_date: the session after whose close the decision was made; it trades at the next open.
        action: the action, or None where ``weight`` is given.
        weight: target fraction of equity, or None where ``action`` is given. Both None: *no signal*, which is
            never read as HOLD.
        probabilities: of the five actions in their order, where a model gave them.
    """

    ticker: str
    as_of_date: date
    action: Action | None = None
    weight: float | None = None
    probabilities: tuple[float, ...] | None = None


@dataclass(frozen=True)
class SignalGrid:
    """Signals on the grid of the price table, T sessions from the first signal on by N tickers.

    Attributes:
        first: index of the first decision session among the sessions of the price table.
        rank: int8 (T, N): -2 to 2, or NO_SIGNAL.
        weight: float64 (T, N): target weights, NaN where the signal is an action or there is none.
        probabilities: float64 (T, N, 5), NaN where unknown; None when no signal has any.
        unexecuted: signals without a session after theirs; they are not on the grid.
        without_opinion: how many of the others had neither action nor weight.
    """

    first: int
    rank: NDArray[np.int8]
    weight: Floats
    probabilities: Floats | None
    unexecuted: tuple[Signal, ...]
    without_opinion: int

    @property
    def present(self) -> NDArray[np.bool_]:
        """Bool (T, N): where there is a signal."""
        present: NDArray[np.bool_] = (self.rank != NO_SIGNAL) | ~np.isnan(self.weight)
        return present

    def window(self, first: int, steps: int) -> SignalGrid:
        """The same signals on the T = ``steps`` decision sessions from ``first`` on; those outside are left out."""
        rank = np.full((steps, self.rank.shape[1]), NO_SIGNAL, dtype=np.int8)
        weight = np.full(rank.shape, np.nan)
        probabilities = None if self.probabilities is None else np.full((*rank.shape, len(ACTIONS)), np.nan)
        low, high = max(first, self.first), min(first + steps, self.first + len(self.rank))
        if low < high:
            here, there = slice(low - first, high - first), slice(low - self.first, high - self.first)
            rank[here], weight[here] = self.rank[there], self.weight[there]
            if probabilities is not None and self.probabilities is not None:
                probabilities[here] = self.probabilities[there]
        return SignalGrid(first, rank, weight, probabilities, self.unexecuted, self.without_opinion)


def signal_grid(signals: Sequence[Signal], sessions: Sessions, tickers: Sequence[str]) -> SignalGrid:
    """Place signals on the grid of sessions and tickers.

    Raises:
        InputError: no signals; none that can be executed; an unknown ticker; a date that is no session; two signals
            for one ticker and date; dates of a ticker out of order; a weight that is not finite; actions mixed with
            weights; probabilities that are not five numbers of 0 or more with sum 1.
    """
    if not signals:
        raise InputError("there is no signal to trade: the list or file of signals is empty")
    columns = _columns_of(signals, tickers)
    code, given = _opinions(signals)
    days = as_days([s.as_of_date for s in signals])
    _check_order(signals, columns, days)
    rows, last = sessions.index(days), sessions.dates[-1]
    beyond = days >= last
    stray = np.flatnonzero((rows < 0) & ~beyond)
    if stray.size:
        raise InputError(
            f"{_name(signals[stray[0]])}: that day is no session of the price table "
            f"({sessions.dates[0]} to {last}): date it to the session whose close it knows"
        )
    if beyond.all():
        raise InputError(f"no signal can be executed: all are dated {last} or later, the last session of the prices")
    on_grid = np.flatnonzero(~beyond)
    first = int(rows[on_grid].min())
    shape = (int(rows[on_grid].max()) - first + 1, len(tickers))
    cells = rows[on_grid] - first, columns[on_grid]
    rank, weight = np.full(shape, NO_SIGNAL, dtype=np.int8), np.full(shape, np.nan)
    rank[cells], weight[cells] = code[on_grid], given[on_grid]
    probabilities = None
    if any(s.probabilities is not None for s in signals):
        probabilities = np.full((*shape, len(ACTIONS)), np.nan)
        probabilities[cells] = _probabilities_of(signals)[on_grid]
    silent = (code == NO_SIGNAL) & np.isnan(given)
    unexecuted = tuple(signals[k] for k in np.flatnonzero(beyond).tolist())
    return SignalGrid(first, rank, weight, probabilities, unexecuted, int(silent[on_grid].sum()))


def _name(signal: Signal) -> str:
    return f"signal of {signal.ticker} as of {signal.as_of_date}"


def _columns_of(signals: Sequence[Signal], tickers: Sequence[str]) -> NDArray[np.int64]:
    known = {ticker: column for column, ticker in enumerate(tickers)}
    columns = np.array([known.get(s.ticker, -1) for s in signals], dtype=np.int64)
    if (columns < 0).any():
        signal = signals[int(np.argmax(columns < 0))]
        spelt = {ticker.upper(): ticker for ticker in known}
        near = get_close_matches(signal.ticker.upper(), spelt, 1)
        hint = f"did you mean {spelt[near[0]]}?" if near else "add its prices or drop its signals"
        raise InputError(f"{_name(signal)}: the price table has no ticker {signal.ticker!r}: {hint}")
    return columns


def _opinions(signals: Sequence[Signal]) -> tuple[NDArray[np.int8], Floats]:
    """Rank and weight of each signal; NO_SIGNAL and NaN where it has none."""
    for signal in signals:
        if signal.action is not None and not isinstance(signal.action, Action):
            kind = type(signal.action).__name__
            raise InputError(f"{_name(signal)}: action {signal.action!r} is a {kind}: use core.actions.Action")
        if signal.weight is not None and not math.isfinite(signal.weight):
            raise InputError(
                f"{_name(signal)}: weight {signal.weight} is not a finite number: leave it out for no signal"
            )
    code = np.array([NO_SIGNAL if s.action is None else _RANK[s.action] for s in signals], dtype=np.int8)
    weight = np.array([np.nan if s.weight is None else s.weight for s in signals], dtype=np.float64)
    acts, weighs = code != NO_SIGNAL, ~np.isnan(weight)
    if (acts & weighs).any():
        both = signals[int(np.argmax(acts & weighs))]
        raise InputError(f"{_name(both)} has both an action and a weight: give one of them")
    if acts.any() and weighs.any():
        raise InputError("some signals give an action and others a weight: give all of them the same way")
    return code, weight


def _probabilities_of(signals: Sequence[Signal]) -> Floats:
    """(signals, 5), NaN where a signal has none."""
    table = np.full((len(signals), len(ACTIONS)), np.nan)
    for k, signal in enumerate(signals):
        if signal.probabilities is not None:
            five = np.asarray(signal.probabilities, dtype=np.float64)
            if five.shape != (len(ACTIONS),) or not (five >= 0).all() or abs(five.sum() - 1.0) > 1e-3:
                raise InputError(f"{_name(signal)}: probabilities {signal.probabilities} must be five of sum 1")
            table[k] = five
    return table


def _check_order(signals: Sequence[Signal], columns: NDArray[np.int64], days: Dates) -> None:
    """Within a ticker, dates must rise in the order of the list."""
    by_ticker = np.argsort(columns, kind="stable")
    step = np.diff(days[by_ticker]).astype(np.int64)
    wrong = np.flatnonzero((np.diff(columns[by_ticker]) == 0) & (step <= 0))
    if wrong.size:
        before, signal = (signals[by_ticker[wrong[0] + k]] for k in (0, 1))
        if before.as_of_date == signal.as_of_date:
            raise InputError(f"{_name(signal)} appears twice: keep one signal for a ticker and date")
        raise InputError(
            f"{_name(signal)} comes after one of {before.as_of_date}: sort the signals of a ticker by date"
        )


def read_signals(path: Path) -> list[Signal]:
    """Read signals from CSV or Parquet: ``ticker, as_of_date`` and ``action`` or ``weight``.

    ``eval_results.csv`` is taken unchanged: its ``pred_action`` is the action, and a row whose ``status`` is not
    ``scored`` is *no signal*. An empty action or weight is no signal either.

    Raises:
        InputError: a file that is missing, empty or of another kind; a missing column; a value that cannot be read.
    """
    table = read_table(path, "signals file")
    action, scored = ("pred_action", True) if "pred_action" in table.columns else ("action", False)
    opinions = [name for name in (action, "weight") if name in table.columns]
    missing = [name for name in ("ticker", "as_of_date", *(["status"] if scored else [])) if name not in table.columns]
    if missing or len(opinions) != 1:
        rule = "signals need the columns ticker, as_of_date and one of action, weight, pred_action with status"
        raise InputError(f"{path} has the columns {', '.join(table.columns)}: {rule}")
    if not table.height:
        raise InputError(f"{path} holds no signal: only a header")
    carries = all(name in table.columns for name in _PROBABILITIES)
    signals = []
    for number, row in enumerate(table.iter_rows(named=True), start=2):
        try:
            signals.append(_signal_of(row, action, carries, scored))
        except ValueError as problem:
            raise InputError(f"{path}, line {number}: {problem}") from None
    return signals


def _signal_of(row: dict[str, Any], action: str, carries: bool, scored: bool) -> Signal:
    ticker, day = row["ticker"], to_date(row["as_of_date"], "as_of_date")
    if not ticker:
        raise ValueError("the ticker is empty")
    if scored and row["status"] != "scored":
        return Signal(ticker, day)
    probabilities = None
    if carries and all(row[name] not in (None, "") for name in _PROBABILITIES):
        probabilities = tuple(_number(row[name], f"{name}: give a share such as 0.25") for name in _PROBABILITIES)
    if (word := row.get(action)) not in (None, ""):
        return Signal(ticker, day, action=parse_action(str(word)), probabilities=probabilities)
    if (weight := row.get("weight")) not in (None, ""):
        return Signal(ticker, day, weight=_number(weight, "weight: give a fraction of equity, 0.05 for 5 %"))
    return Signal(ticker, day)


def _number(value: Any, remedy: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{str(value)[:40]!r} is no number for {remedy}") from None


def signal_tickers(signals: Iterable[Signal]) -> tuple[str, ...]:
    """The tickers that signals name, sorted."""
    return tuple(sorted({signal.ticker for signal in signals}))
