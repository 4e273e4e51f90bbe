"""Actions from what the market did, as an alternative to the teacher's.

Legend: R_t forward return over H sessions, v_t daily volatility as of t, z_t = ln(1 + R_t) / (v_t sqrt H).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from finseek.core.actions import ACTIONS, Action
from finseek.core.errors import InputError
from finseek.core.sessions import Dates
from finseek.market.options import LabelRule, SnapshotOptions
from finseek.market.prices import Prices
from finseek.market.returns import forward_returns, label_end
from finseek.market.snapshot import snapshots

NONE = np.int8(-128)


class LabelOptions(LabelRule):
    """The same over a number of sessions."""

    horizon: int = Field(default=5, ge=1, description="sessions from entry to exit")


@dataclass(frozen=True)
class RealisedLabels:
    """Actions that hindsight would have chosen; targets to learn, never inputs.

    Attributes:
        prices: the table.
        rank: int8 (S, N), -2 STRONG_SELL to 2 STRONG_BUY, -128 where the return or the volatility is unknown.
        label_end: session at which a label is known, shape (S,); NaT where it is beyond the table.
        shares: share of each action among the known labels.
    """

    prices: Prices
    rank: NDArray[np.int8]
    label_end: Dates
    shares: dict[Action, float]

    def action(self, ticker: str, as_of_date: date) -> Action | None:
        """The label of a ticker and session; None where it is unknown.

        Raises:
            InputError: the ticker is unknown, or the day is no session.
        """
        row = int(self.prices.sessions.index([as_of_date])[0])
        if row < 0:
            raise InputError(f"{as_of_date} is no session of the price table: {ticker} has no label as of it")
        rank = int(self.rank[row, self.prices.column(ticker)])
        return None if rank == NONE else ACTIONS[rank + 2]


def realised_labels(prices: Prices, options: LabelOptions | None = None) -> RealisedLabels:
    """Label every session and ticker by z_t: HOLD within +-hold, STRONG from +-strong on.

    Raises:
        InputError: excess without a benchmark.
    """
    options = options or LabelOptions()
    returns = forward_returns(prices, [options.horizon], entry=options.entry, excess=options.excess)[options.horizon]
    volatility = snapshots(prices, SnapshotOptions(features=("vol20",))).features["vol20"]
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.log1p(returns) / (volatility * sqrt(options.horizon))
    size = np.abs(z)
    rank = np.sign(z) * ((size >= options.hold).astype(float) + (size >= options.strong))
    known = np.isfinite(z)
    ranks = np.where(known, rank, float(NONE)).astype(np.int8)
    shares = {action: float((ranks[known] == action.rank).mean()) if known.any() else 0.0 for action in ACTIONS}
    return RealisedLabels(prices, ranks, label_end(prices, options.horizon), shares)
