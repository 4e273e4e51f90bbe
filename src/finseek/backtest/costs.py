"""What an order costs: slippage and commission, row by row.

Legend: N tickers; delta (..., N) is money bought (above 0) or sold at the quoted price, P the raw price of a share,
V the mean money volume and sigma the daily volatility known at the decision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.options import BacktestOptions
from finseek.backtest.tape import Tape

Floats = NDArray[np.float64]
_ROUNDS = 60


def rates(options: BacktestOptions) -> tuple[float, float]:
    """Slippage s, with half the spread, and commission f: the fractions of an order that it always costs."""
    return options.slippage + options.costs.half_spread, options.transaction_cost


@dataclass(frozen=True)
class CostModel:
    """The costs of the orders of one tape; see ``BacktestOptions`` and ``CostOptions`` for the parameters."""

    tape: Tape
    options: BacktestOptions

    @property
    def linear(self) -> bool:
        """Whether a cost is a fixed fraction of the order."""
        costs = self.options.costs
        return not (costs.minimum or costs.impact)

    def __call__(self, delta: Floats, row: int) -> tuple[Floats, Floats]:
        """Money lost to slippage, s·|delta|, and commission, max(f·|delta|·(1 + s·sgn) + per_share·|delta|/P, minimum).

        s = slippage + half_spread + impact · sigma · √(|delta| / V): the square-root law of market impact.
        """
        costs, size = self.options.costs, np.abs(delta)
        rate: Floats | float
        rate, f = rates(self.options)
        if costs.impact:
            volume = np.where(size > 0, self.tape.money_volume[row], 1.0)
            rate = rate + costs.impact * np.where(size > 0, self.tape.volatility[row], 0.0) * np.sqrt(size / volume)
        slip = rate * size
        fee = f * (size + rate * delta)
        if costs.per_share:
            fee = fee + costs.per_share * size / np.where(size > 0, self.tape.raw_fill[row], 1.0)
        if costs.minimum:
            fee = np.where(size > 0, np.maximum(fee, costs.minimum), 0.0)
        return slip, fee

    def fit_to_cash(self, delta: Floats, spent: Floats, cash: Floats, row: int) -> Floats:
        """Scale the buys pro rata so that they, with their costs, use no more than the cash at hand.

        The scale is cash over need; where costs are not linear that may still be too much, and is then repeated.

        Args:
            delta: orders of the row.
            spent: delta and its costs, as charged before scaling.
            cash: (...) cash before the orders.
            row: the row, for the cost of the scaled orders.
        """
        buys = delta > 0
        have = np.maximum(cash - np.where(buys, 0.0, spent).sum(axis=-1), 0.0)
        scale = np.ones(have.shape)
        for _ in range(_ROUNDS):
            need = np.where(buys, spent, 0.0).sum(axis=-1)
            over = need > have * (1.0 + (0.0 if self.linear else 1e-12))
            if not over.any():
                break
            scale = np.where(over, scale * have / np.where(need > 0, need, 1.0), scale)
            scaled = np.where(buys, delta * scale[..., None], delta)
            if self.linear:
                return scaled
            spent = scaled + sum(self(scaled, row))
        return np.where(buys, delta * scale[..., None], delta)
