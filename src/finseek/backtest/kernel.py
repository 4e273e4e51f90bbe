"""The plain account, fast: costs that are a fraction of the order, no limits. NumPy, and Numba where installed.

Legend: T decision sessions, N tickers, B any number of leading batch axes; the formula and its letters are those of
``simulate``. Both kernels do the same sums; they differ by rounding (1e-12 of the equity).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.costs import rates
from finseek.backtest.options import BacktestOptions
from finseek.backtest.tape import Tape
from finseek.core.errors import MissingPart

Floats = NDArray[np.float64]
_NO_PRICE, _CASH = 1, 2  # places among the reasons that ``simulate`` names


def is_plain(tape: Tape, options: BacktestOptions) -> bool:
    """Whether the plain account does all that the options ask for."""
    costs, limits = options.costs, options.limits
    extras = (
        costs.per_share,
        costs.minimum,
        costs.impact,
        costs.borrow_fee,
        costs.cash_interest,
        costs.margin_interest,
    )
    bounds = (limits.max_weight, limits.max_gross, limits.max_net, limits.max_turnover, limits.max_participation)
    return (
        not any(extras)
        and all(bound is None for bound in (*bounds, limits.max_sector))
        and not options.no_trade_band
        and options.fractional
        and tape.dividend is None
        and tape.settled is None
    )


class Pages(NamedTuple):
    """Arrays (T+1, N) of zeros that the plain account fills as it goes; what they mean stands at ``Account``."""

    before: Floats
    traded: Floats
    held: Floats
    reason: NDArray[np.int8]


def plain_account(
    weights: Floats, tape: Tape, options: BacktestOptions, pages: Pages | None = None
) -> tuple[Floats, Floats, Floats]:
    """Equity, equity at the fill prices and cash, each (..., T+1), of weights (..., T, N).

    Args:
        weights: fractions of equity; NaN places no order.
        tape: the window.
        options: costs, capital, leverage.
        pages: to be filled, of a single account; None where only the equity is wanted.
    """
    *batch, steps, names = weights.shape
    s, f = rates(options)
    a, b = 1.0 + f * s, s + f  # an order costs delta · a + |delta| · b
    equity, at_open, cash_at = (np.full((*batch, steps + 1), options.capital) for _ in range(3))
    cash, h = np.full(batch, options.capital), np.zeros((*batch, names))
    gaps = np.asarray((~tape.tradable[1:] | np.isnan(weights)).any(axis=-1))
    for k in range(1, steps + 1):
        w = weights[..., k - 1, :]
        h *= tape.before[k]
        E = cash + h.sum(axis=-1)
        delta = w * np.maximum(E, 0.0)[..., None] - h
        if gaps[..., k - 1].any():
            delta[np.isnan(w)] = 0.0
            if pages is not None:
                pages.reason[k][~tape.tradable[k] & (delta != 0)] = _NO_PRICE
            delta[..., ~tape.tradable[k]] = 0.0
        net, gross = delta.sum(axis=-1), np.abs(delta).sum(axis=-1)
        spent = a * net + b * gross
        if not options.allow_leverage and (spent > cash).any():
            bought, sold = 0.5 * (gross + net), 0.5 * (gross - net)
            have, need = np.maximum(cash + (a - b) * sold, 0.0), (a + b) * bought
            scale = np.where(need > have, have / np.where(need > 0, need, 1.0), 1.0)
            buys = delta > 0
            delta = np.where(buys, delta * scale[..., None], delta)
            if pages is not None and scale < 1.0 - 1e-12:
                pages.reason[k][buys] = _CASH
            spent = (a + b) * bought * scale - (a - b) * sold
        cash = cash - spent
        at_open[..., k], cash_at[..., k] = E, cash
        if pages is not None:
            pages.before[k], pages.traded[k] = h, delta
        h += delta
        h *= tape.after[k]
        equity[..., k] = cash + h.sum(axis=-1)
        if pages is not None:
            pages.held[k] = h
    return equity, at_open, cash_at


def have_numba() -> bool:
    """Whether the part ``[speed]`` is installed."""
    from importlib.util import find_spec

    return find_spec("numba") is not None


def numba_equity(weights: Floats, which: NDArray[np.int64], tape: Tape, options: list[BacktestOptions]) -> Floats:
    """Equity (P, T+1) of P plain accounts at once, on all cores.

    Args:
        weights: (G, T, N) distinct weight matrices.
        which: (P,) the matrix of each account.
        tape: the window that all share.
        options: of each account.

    Raises:
        MissingPart: without numba.
    """
    parameters = np.array([[*rates(o), o.capital, float(o.allow_leverage)] for o in options])
    masked = np.where(tape.tradable, tape.before, -tape.before)  # a negative factor marks a name without a price
    equity: Floats = _compiled()(weights, which, masked, tape.after, parameters)
    return equity


@cache
def _compiled() -> Callable[..., Any]:
    try:
        from numba import njit, prange
    except ImportError:
        raise MissingPart("numba", "speed", "the fast kernel of the backtest") from None

    def accounts(weights, which, masked, after, parameters):  # type: ignore[no-untyped-def]
        count, steps, names = len(which), weights.shape[1], weights.shape[2]
        equity = np.empty((count, steps + 1))
        for p in prange(count):
            book = weights[which[p]]
            s, f, capital, leverage = parameters[p]
            a, b = 1.0 + f * s, s + f
            cash, h, delta = capital, np.zeros(names), np.zeros(names)
            equity[p, 0] = capital
            for k in range(1, steps + 1):
                held = 0.0
                for i in range(names):
                    h[i] *= abs(masked[k, i])
                    held += h[i]
                E = max(cash + held, 0.0)
                bought, sold = 0.0, 0.0
                for i in range(names):
                    target = book[k - 1, i]
                    order = target * E - h[i] if masked[k, i] > 0 and target == target else 0.0
                    delta[i] = order
                    bought += max(order, 0.0)
                    sold += max(-order, 0.0)
                need, have = (a + b) * bought, max(cash + (a - b) * sold, 0.0)
                scale = have / need if leverage == 0.0 and need > have else 1.0
                cash += (a - b) * sold - need * scale
                held = 0.0
                for i in range(names):
                    order = delta[i]
                    h[i] = (h[i] + (order * scale if order > 0.0 else order)) * after[k, i]
                    held += h[i]
                equity[p, k] = cash + held
        return equity

    # reassociation lets the sums use vector units; nnan is left out because NaN weights mean no order
    compiled: Callable[..., Any] = njit(parallel=True, fastmath={"reassoc", "contract"}, error_model="numpy")(accounts)
    return compiled
