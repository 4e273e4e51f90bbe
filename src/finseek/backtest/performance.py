"""Measures of an equity curve. Every one is None where it is not defined; none is NaN.

Legend: r the T close-to-close returns of the equity, flat days included; 252 sessions a year; costs are in r.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.simulate import Account
from finseek.backtest.tape import Tape
from finseek.core.sessions import YEAR, Dates

Floats = NDArray[np.float64]
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
    """Geometric: prod(1 + r) ** (252 / T) - 1, as empyrical has it; quantstats' cagr counts calendar years."""
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


def profit_factor(profits: Floats) -> float | None:
    """Sum of the gains over the size of the sum of the losses; None without losses."""
    return _ratio(float(profits[profits > 0].sum()), -float(profits[profits < 0].sum()))


def omega_ratio(returns: Floats) -> float | None:
    """Sum of the positive returns over the size of the sum of the negative ones (threshold 0); None without losses."""
    return profit_factor(returns)


def value_at_risk(returns: Floats, level: float = 0.05) -> float | None:
    """Historical: the ``level`` quantile of the daily returns, linearly interpolated; negative is a loss.

    empyrical's value_at_risk; quantstats' var is that of a normal distribution with the same mean and variance.
    """
    return float(np.quantile(returns, level)) if len(returns) else None


def expected_shortfall(returns: Floats, level: float = 0.05) -> float | None:
    """Mean of the worst returns, as many as floor((T - 1) · level) + 1 (empyrical's conditional_value_at_risk)."""
    if not len(returns):
        return None
    count = int((len(returns) - 1) * level) + 1
    return float(np.partition(returns, count - 1)[:count].mean())


def relative_metrics(returns: Floats, benchmark: Floats, risk_free: float = 0.0) -> dict[str, float | None]:
    """Measures against the returns of a benchmark, both (T,).

    beta = cov(r, b) / var(b) (ddof 1); alpha_annual = 252 · (mean(r - rf) - beta · mean(b - rf)), arithmetic, where
    empyrical compounds the daily alpha; tracking_error = std(r - b, ddof 1) · √252; information_ratio =
    252 · mean(r - b) / tracking_error (empyrical's excess_sharpe, annualised); correlation is Pearson's.
    """
    daily = risk_free / YEAR
    deviation, of_benchmark = spread(returns), spread(benchmark)
    if not of_benchmark:
        return dict.fromkeys(("beta", "alpha_annual", "tracking_error", "information_ratio", "correlation"))
    covariance = float(np.cov(returns, benchmark, ddof=1)[0, 1])
    beta = covariance / of_benchmark**2
    active = returns - benchmark
    error = spread(active) * math.sqrt(YEAR)
    return {
        "beta": beta,
        "alpha_annual": YEAR * (float(returns.mean()) - daily - beta * (float(benchmark.mean()) - daily)),
        "tracking_error": error,
        "information_ratio": _ratio(YEAR * float(active.mean()), error),
        "correlation": covariance / (deviation * of_benchmark) if deviation else None,
    }


def period_returns(dates: Dates, equity: Floats, unit: Literal["M", "Y"]) -> dict[str, float]:
    """Compounded return of each calendar month or year that has a return: {"2025-01": 0.012, …}."""
    period = dates.astype(f"datetime64[{unit}]")
    last = np.flatnonzero(np.concatenate([period[1:] != period[:-1], [True]]))
    ends = last[last > 0]
    begins = np.concatenate([[0], ends[:-1]])
    growth = equity[ends] / np.where(equity[begins] > 0, equity[begins], np.inf)
    return {str(period[end]): float(value - 1.0) for end, value in zip(ends, growth, strict=True)}


def worst_drawdowns(dates: Dates, equity: Floats, count: int = 5) -> list[dict[str, Any]]:
    """The deepest drawdowns: depth, peak, valley, recovery (null while below), sessions from peak to recovery."""
    below = drawdown(equity) < 0
    starts = np.flatnonzero(below & ~np.concatenate([[False], below[:-1]])) - 1
    found: list[dict[str, Any]] = []
    for peak in starts.tolist():
        back = np.flatnonzero(~below[peak + 1 :])
        end = peak + 1 + int(back[0]) if len(back) else None
        stretch = drawdown(equity)[peak : end if end is not None else len(equity)]
        found.append(
            {
                "depth": float(stretch.min()),
                "peak": str(dates[peak]),
                "valley": str(dates[peak + int(stretch.argmin())]),
                "recovery": None if end is None else str(dates[end]),
                "sessions": (len(equity) - 1 if end is None else end) - peak,
            }
        )
    return sorted(found, key=lambda one: float(one["depth"]))[:count]


def capacity(account: Account, tape: Tape, participation: float = 0.01) -> float | None:
    """Capital at which 95 % of the orders are at most ``participation`` of the name's mean money volume.

    A hint, in money: starting capital · participation / (95 % quantile of |order| / mean money volume known at the
    decision). None without orders or volume.
    """
    known = (account.traded != 0) & (tape.money_volume > 0)
    if not known.any():
        return None
    share = np.abs(account.traded[known]) / tape.money_volume[known]
    return float(account.equity[0]) * participation / float(np.quantile(share, 0.95))


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
        "omega": omega_ratio(r),
        "var_95": value_at_risk(r),
        "cvar_95": expected_shortfall(r),
        "hit_rate_days": hit_rate(r),
    }


def _over(money: Floats, equity: Floats) -> Floats:
    """Money as a fraction of equity; 0 where there is no equity left."""
    return np.where(equity > 0, money / np.where(equity > 0, equity, 1.0), 0.0)


def turnover(account: Account) -> Floats:
    """Money bought and sold (both sides, at quoted prices) over the equity at the open, by row: (T+1,)."""
    return _over(np.abs(account.traded).sum(axis=-1), account.equity_at_open)


def exposure(account: Account) -> tuple[Floats, Floats]:
    """Gross and net holdings over equity at each close: two arrays (T+1,)."""
    gross, net = np.abs(account.held).sum(axis=-1), account.held.sum(axis=-1)
    return _over(gross, account.equity), _over(net, account.equity)


def account_metrics(account: Account, risk_free: float = 0.0) -> dict[str, Any]:
    """All measures of one account (no batch axes).

    turnover_daily is the mean over the T sessions, turnover_annual 252 times that; exposures are means over the
    closes of rows 1 to T; costs are money, ``costs_of_capital`` their sum over the starting capital; income is cash
    dividends less borrow fees.
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
        "interest": float(account.interest.sum()),
        "income": float(account.income.sum()),
    }
