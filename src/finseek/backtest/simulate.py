"""The account, day by day, in money.

Legend: T decision sessions, N tickers, B any number of leading batch axes. Row 0 is the first decision session, at
``capital``; row k fills at its open what was decided at row k-1. With h the holdings in money, w the target weights,
s the slippage and f the commission, the open of row k does

    h = h · fill(k) / close(k-1)
    E = cash + sum(h)
    delta = w · E - h
    cash = cash - sum(delta · (1 + s · sgn(delta))) - f · sum(|delta| · (1 + s · sgn(delta)))
    h = h + delta

and its close h = h · close(k) / fill(k), equity = cash + sum(h). A weight of NaN places no order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.options import BacktestOptions
from finseek.backtest.tape import Tape

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Account:
    """What the account held and did. Money everywhere; row 0 has no trade.

    Attributes:
        equity: (..., T+1) at the close.
        equity_at_open: (..., T+1) at the fill price of the row, before its orders.
        cash: (..., T+1) at the close.
        before: (..., T+1, N) holdings at the fill price, before the orders of the row.
        traded: (..., T+1, N) money bought (above 0) or sold at the quoted price.
        slippage: (..., T+1, N) money lost to slippage.
        commission: (..., T+1, N) money paid in commissions.
        held: (..., T+1, N) holdings at the close.
        wanted: (..., T+1, N) money that the target weight asked to trade, before any limit.
    """

    equity: Floats
    equity_at_open: Floats
    cash: Floats
    before: Floats
    traded: Floats
    slippage: Floats
    commission: Floats
    held: Floats
    wanted: Floats


def simulate(weights: Floats, tape: Tape, options: BacktestOptions) -> Account:
    """Trade target weights.

    Args:
        weights: (..., T, N) fractions of equity decided at the close of rows 0 to T-1; NaN places no order.
        tape: the window of T+1 rows.
        options: costs, capital and leverage.
    """
    *batch, steps, names = weights.shape
    rows = (*batch, steps + 1)
    equity, equity_at_open, cash_at_close = (np.full(rows, options.capital) for _ in range(3))
    before, traded, slipped, paid, held, wanted = (np.zeros((*rows, names)) for _ in range(6))
    cash, h = np.full(batch, options.capital), np.zeros((*batch, names))
    for k in range(1, steps + 1):
        h = h * tape.before[k]
        E = cash + h.sum(axis=-1)
        w = weights[..., k - 1, :]
        delta = np.where(np.isnan(w), 0.0, w * E[..., None] - h)
        before[..., k, :], wanted[..., k, :], equity_at_open[..., k] = h, delta, E
        delta = np.where(tape.tradable[k], delta, 0.0)
        slip, fee = costs(delta, options)
        if not options.allow_leverage:
            delta = scale_to_cash(delta, slip + fee, cash)
            slip, fee = costs(delta, options)
        cash = cash - (delta + slip + fee).sum(axis=-1)
        h = (h + delta) * tape.after[k]
        traded[..., k, :], slipped[..., k, :], paid[..., k, :] = delta, slip, fee
        cash_at_close[..., k], held[..., k, :] = cash, h
        equity[..., k] = cash + h.sum(axis=-1)
    return Account(equity, equity_at_open, cash_at_close, before, traded, slipped, paid, held, wanted)


def costs(delta: Floats, options: BacktestOptions) -> tuple[Floats, Floats]:
    """Money lost to slippage, s·|delta|, and commission, f·|delta|·(1 + s·sgn(delta)), of each order."""
    slip = options.slippage * np.abs(delta)
    fee = options.transaction_cost * (np.abs(delta) + options.slippage * delta)
    return slip, fee


def scale_to_cash(delta: Floats, cost: Floats, cash: Floats) -> Floats:
    """Scale the buys of a row pro rata so that they, with their costs, use no more than the cash at hand."""
    spent = delta + cost
    buys = delta > 0
    need = np.where(buys, spent, 0.0).sum(axis=-1)
    have = cash - np.where(buys, 0.0, spent).sum(axis=-1)
    scale = np.where(need > have, np.maximum(have, 0.0) / np.where(need > 0, need, 1.0), 1.0)
    return np.where(buys, delta * scale[..., None], delta)
