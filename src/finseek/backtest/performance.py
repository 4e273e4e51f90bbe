"""Measures of an equity curve. Every one is None where it is not defined; none is NaN.

Legend: r the T close-to-close returns of the equity, flat days included; 252 sessions a year; costs are in r.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.simulate import Account

Floats = NDArray[np.float64]
YEAR = 252
_Z_TWO_SIDED_5_PERCENT = 1.959963984540054


def returns_of(equity: Floats) -> Floats:
    """Close-to-close returns of an equity curve (T+1,) -> (T,); a return after the equity is gone is 0."""
    base = np.where(equity[:-1] > 0, equity[:-1], np.inf)
    return np.diff(equity) / base


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator > 0 and math.isfinite(numerator / denominator) else None


def spread(returns: Floats) -> float:
    """Standard deviation (ddof 1), 0 for fewer than two returns or where they differ by rounding alone."""
    if len(returns) < 2 or np.ptp(returns) <= 1e-14 * (1.0 + float(np.abs(returns).max())):
        return 0.0
    return float(returns.std(ddof=1))


def annual_return(returns: Floats) -> float | None:
    """Geometric: prod(1 + r) ** (252 / T) - 1."""
    total = float(np.prod(1.0 + returns))
    return total ** (YEAR / len(returns)) - 1.0 if len(returns) and total > 0 else None


def volatility(returns: Floats) -> float | None:
    """std(r, ddof 1) · √252; None for fewer than two returns."""
    return spread(returns) * math.sqrt(YEAR) if len(returns) > 1 else None


def sharpe_ratio(returns: Floats, risk_free: float = 0.0) -> float | None:
    """(mean r - risk_free / 252) / std(r, ddof 1) · √252; None at zero variance."""
    if not len(returns):
        return None
    return _ratio(float(returns.mean() - risk_free / YEAR) * math.sqrt(YEAR), spread(returns))


def sortino_ratio(returns: Floats, risk_free: float = 0.0) -> float | None:
    """252 · mean(r - risk_free / 252) / (√252 · sqrt(mean(min(r - risk_free / 252, 0)²))), as empyrical has it."""
    if not len(returns):
        return None
    excess = returns - risk_free / YEAR
    downside = float(np.sqrt(np.mean(np.minimum(excess, 0.0) ** 2)))
    return _ratio(float(excess.mean()) * math.sqrt(YEAR), downside)


def drawdown(equity: Floats) -> Floats:
    """Fraction below the highest equity so far, the first row included; at most 0. Shape of the equity."""
    return equity / np.maximum.accumulate(equity) - 1.0


def calmar_ratio(equity: Floats) -> float | None:
    """Annual return over the size of the deepest drawdown; None without a drawdown."""
    annual = annual_return(returns_of(equity))
    return None if annual is None else _ratio(annual, -float(drawdown(equity).min()))


def sharpe_standard_error(sessions: int) -> float | None:
    """Standard error of an annual Sharpe ratio near zero, √(252 / T) (Lo 2002): 1.81 for 77 sessions."""
    return math.sqrt(YEAR / sessions) if sessions > 0 else None


def smallest_detectable_sharpe(sessions: int) -> float | None:
    """The annual Sharpe ratio from which on T sessions differ from zero at 5 %, two-sided: 1.96 standard errors."""
    error = sharpe_standard_error(sessions)
    return None if error is None else _Z_TWO_SIDED_5_PERCENT * error


def hit_rate(profits: Floats) -> float | None:
    """Share of gains among the values that are not zero."""
    moved = profits[profits != 0]
    return float((moved > 0).mean()) if len(moved) else None


def curve_metrics(equity: Floats, risk_free: float = 0.0) -> dict[str, Any]:
    """The measures that need the equity curve (T+1,) alone."""
    r = returns_of(equity)
    return {
        "total_return": float(equity[-1] / equity[0] - 1.0),
        "annual_return": annual_return(r),
        "volatility": volatility(r),
        "sharpe": sharpe_ratio(r, risk_free),
        "sortino": sortino_ratio(r, risk_free),
        "max_drawdown": float(drawdown(equity).min()),
        "calmar": calmar_ratio(equity),
        "hit_rate_days": hit_rate(r),
    }


def turnover(account: Account) -> Floats:
    """Money bought and sold (both sides, at quoted prices) over the equity at the open, by row: (T+1,)."""
    share: Floats = np.abs(account.traded).sum(axis=-1) / account.equity_at_open
    return share


def exposure(account: Account) -> tuple[Floats, Floats]:
    """Gross and net holdings over equity at each close: two arrays (T+1,)."""
    return np.abs(account.held).sum(axis=-1) / account.equity, account.held.sum(axis=-1) / account.equity


def account_metrics(account: Account, risk_free: float = 0.0) -> dict[str, Any]:
    """All measures of one account (no batch axes).

    turnover_daily is the mean over the T sessions, turnover_annual 252 times that; exposures are means over the
    closes of rows 1 to T; costs are money, ``costs_of_capital`` their sum over the starting capital.
    """
    gross, net = exposure(account)
    daily_turnover = float(turnover(account)[1:].mean())
    slipped, paid = float(account.slippage.sum()), float(account.commission.sum())
    return {
        **curve_metrics(account.equity, risk_free),
        "final_equity": float(account.equity[-1]),
        "turnover_daily": daily_turnover,
        "turnover_annual": daily_turnover * YEAR,
        "gross_exposure": float(gross[1:].mean()),
        "net_exposure": float(net[1:].mean()),
        "commission_paid": paid,
        "slippage_paid": slipped,
        "costs_paid": slipped + paid,
        "costs_of_capital": (slipped + paid) / float(account.equity[0]),
    }
