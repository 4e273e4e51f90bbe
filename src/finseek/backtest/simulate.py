"""The account, day by day, in money.

Legend: T decision sessions, N tickers, B any number of leading batch axes. Row 0 is the first decision session, at
``capital``; row k fills what was decided at row k-1. With h the holdings in money, w the target weights, s the
slippage and f the commission, the fills of row k do

    h = h · fill(k) / close(k-1)
    E = cash + sum(h)
    delta = w · E - h
    cash = cash - sum(delta · (1 + s · sgn(delta))) - f · sum(|delta| · (1 + s · sgn(delta)))
    h = h + delta

and its close h = h · close(k) / fill(k), equity = cash + sum(h). A weight of NaN places no order. Dividends, borrow
fees and interest of the night before enter cash ahead of E; limits shrink delta; costs may be more than linear. An
account whose E is not above 0 has lost everything: its targets are 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.costs import CostModel, rates
from finseek.backtest.kernel import Pages, is_plain, plain_account
from finseek.backtest.limits import Row, active_limits, whole_shares
from finseek.backtest.options import BacktestOptions
from finseek.backtest.tape import Tape
from finseek.core.sessions import YEAR

Floats = NDArray[np.float64]
NO_PRICE, NO_VOLUME, CASH = "no price", "no volume", "cash"


@dataclass(frozen=True)
class Account:
    """What the account held and did. Money everywhere; row 0 has no trade.

    Attributes:
        equity: (T+1,) at the close.
        equity_at_open: (T+1,) at the fill prices of the row, before its orders.
        cash: (T+1,) at the close.
        interest: (T+1,) earned on cash, negative where paid.
        before: (T+1, N) holdings at the fill price, before the orders of the row.
        income: (T+1, N) cash dividends received less borrow fees paid, before the orders of the row.
        wanted: (T+1, N) what the target weight asked to trade, before any limit.
        traded: (T+1, N) bought (above 0) or sold at the quoted price.
        slippage: (T+1, N) lost to slippage.
        commission: (T+1, N) paid in commissions.
        held: (T+1, N) holdings at the close.
        reason: int8 (T+1, N) index into ``reasons`` of what last changed an order; 0 where it filled as wanted.
        reasons: the names of the reasons, the first of them empty.
    """

    equity: Floats
    equity_at_open: Floats
    cash: Floats
    interest: Floats
    before: Floats
    income: Floats
    wanted: Floats
    traded: Floats
    slippage: Floats
    commission: Floats
    held: Floats
    reason: NDArray[np.int8]
    reasons: tuple[str, ...]


class _Book:
    """The state of one or a batch of accounts, and the step from row to row."""

    def __init__(self, tape: Tape, options: BacktestOptions, batch: tuple[int, ...]) -> None:
        self.tape, self.options = tape, options
        self.cost = CostModel(tape, options)
        self.limits = active_limits(tape, options)
        self.cash, self.h = np.full(batch, options.capital), np.zeros((*batch, len(tape.tickers)))
        self.tradable, self.no_volume = _tradable(tape, options)
        costs = options.costs
        self.finances = bool(costs.borrow_fee or costs.cash_interest or costs.margin_interest)

    def open(self, k: int) -> tuple[Floats | None, Floats | None]:
        """Carry the book over night to the fill prices of row k; return (income, interest) where there is any."""
        income = interest = None
        if self.tape.dividend is not None:
            income = self.h * self.tape.dividend[k]
        if self.finances:
            costs, short = self.options.costs, np.maximum(-self.h, 0.0)
            fee = costs.borrow_fee / YEAR * short
            income = -fee if income is None else income - fee
            earned = costs.cash_interest * np.maximum(self.cash - short.sum(axis=-1), 0.0)
            interest = (earned - costs.margin_interest * np.maximum(-self.cash, 0.0)) / YEAR
            self.cash = self.cash + interest
        if income is not None:
            self.cash = self.cash + income.sum(axis=-1)
        self.h = self.h * self.tape.before[k]
        return income, interest

    def orders(self, w: Floats, k: int, why: NDArray[np.int8] | None) -> tuple[Floats, ...]:
        """Trade towards the weights w (B, N); return (E, wanted, delta, slippage, commission)."""
        h, cash = self.h, self.cash
        E = cash + h.sum(axis=-1)
        wanted = np.where(np.isnan(w), 0.0, w * np.maximum(E, 0.0)[..., None] - h)
        delta = np.where(self.tradable[k], wanted, 0.0)
        if why is not None:
            why[(delta != wanted)] = 1
            if self.no_volume is not None:
                why[(delta != wanted) & self.no_volume[k]] = 2
        row = Row(k, h, E[..., None], self.tradable[k] & ~np.isnan(w))
        for code, limit in enumerate(self.limits.values(), start=3):
            delta = self._smaller(delta, limit(delta, row), wanted, why, code)
        slip, fee = self.cost(delta, k)
        if not self.options.allow_leverage:
            spent = delta + slip + fee
            if (spent.sum(axis=-1) > cash).any():
                fitted = self.cost.fit_to_cash(delta, spent, cash, k)
                if not self.options.fractional:
                    fitted = np.where(fitted < delta, whole_shares(fitted, row, tape=self.tape), fitted)
                delta = self._smaller(delta, fitted, wanted, why, 3 + len(self.limits))
                slip, fee = self.cost(delta, k)
        if self.tape.settled is not None:
            delta = np.where(self.tape.settled[k], -h, delta)
        self.cash = cash - (delta + slip + fee).sum(axis=-1)
        self.h = h + delta
        return E, wanted, delta, slip, fee

    @staticmethod
    def _smaller(delta: Floats, limited: Floats, wanted: Floats, why: NDArray[np.int8] | None, code: int) -> Floats:
        if why is not None:
            why[np.abs(limited - delta) > 1e-12 * np.abs(wanted)] = code
        return limited

    def close(self, k: int) -> Floats:
        """Mark the book at the close of row k; return the equity."""
        self.h = self.h * self.tape.after[k]
        equity: Floats = self.cash + self.h.sum(axis=-1)
        return equity


def _tradable(tape: Tape, options: BacktestOptions) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Who has a price and, where orders depend on them, a known volume and volatility; and who lacks the latter."""
    unknown = np.zeros(tape.tradable.shape, dtype=bool)
    if options.costs.impact or options.limits.max_participation is not None:
        unknown |= ~(tape.money_volume > 0)
    if options.costs.impact:
        unknown |= np.isnan(tape.volatility)
    if not unknown.any():
        return tape.tradable, None
    return tape.tradable & ~unknown, tape.tradable & unknown


def simulate(weights: Floats, tape: Tape, options: BacktestOptions) -> Account:
    """Trade target weights and keep the books.

    Args:
        weights: (T, N) fractions of equity decided at the close of rows 0 to T-1; NaN places no order.
        tape: the window of T+1 rows.
        options: costs, limits, capital and leverage.
    """
    if is_plain(tape, options):
        return _plain(weights, tape, options)
    return _general(weights, tape, options)


def _plain(weights: Floats, tape: Tape, options: BacktestOptions) -> Account:
    """The account of ``kernel``, its costs worked out after the fact."""
    shape = (len(weights) + 1, weights.shape[1])
    pages = Pages(np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int8))
    equity, equity_at_open, cash = plain_account(weights, tape, options, pages)
    s, f = rates(options)
    # in place: at this size a fresh array costs more than the sum
    slippage, commission = np.abs(pages.traded), pages.traded * s
    commission += slippage
    commission *= f
    slippage *= s
    wanted, rows = pages.traded, np.flatnonzero(pages.reason.any(axis=1))
    if len(rows):
        asked = weights[rows - 1] * np.maximum(equity_at_open[rows, None], 0.0) - pages.before[rows]
        wanted = wanted.copy()
        wanted[rows] = np.where(pages.reason[rows] != 0, asked, wanted[rows])
    return Account(
        equity,
        equity_at_open,
        cash,
        np.zeros(len(equity)),
        pages.before,
        np.zeros(shape),
        wanted,
        pages.traded,
        slippage,
        commission,
        pages.held,
        pages.reason,
        ("", NO_PRICE, CASH),
    )


def _general(weights: Floats, tape: Tape, options: BacktestOptions) -> Account:
    steps, names = weights.shape
    book = _Book(tape, options, ())
    equity, equity_at_open, cash = (np.full(steps + 1, options.capital) for _ in range(3))
    interest = np.zeros(steps + 1)
    before, income, wanted, traded, slipped, paid, held = (np.zeros((steps + 1, names)) for _ in range(7))
    reason = np.zeros((steps + 1, names), dtype=np.int8)
    for k in range(1, steps + 1):
        received, earned = book.open(k)
        if received is not None:
            income[k] = received
        if earned is not None:
            interest[k] = earned
        before[k] = book.h
        equity_at_open[k], wanted[k], traded[k], slipped[k], paid[k] = book.orders(weights[k - 1], k, reason[k])
        cash[k] = book.cash
        equity[k] = book.close(k)
        held[k] = book.h
    reasons = ("", NO_PRICE, NO_VOLUME, *book.limits, CASH)
    return Account(
        equity, equity_at_open, cash, interest, before, income, wanted, traded, slipped, paid, held, reason, reasons
    )


def simulate_equity(weights: Floats, tape: Tape, options: BacktestOptions) -> Floats:
    """Equity at the closes alone, of a batch of books: weights (B, T, N) -> (B, T+1); the same numbers as simulate."""
    if is_plain(tape, options):
        return plain_account(weights, tape, options)[0]
    *batch, steps, _ = weights.shape
    book = _Book(tape, options, tuple(batch))
    equity = np.full((*batch, steps + 1), options.capital)
    for k in range(1, steps + 1):
        book.open(k)
        book.orders(weights[..., k - 1, :], k, None)
        equity[..., k] = book.close(k)
    return equity
