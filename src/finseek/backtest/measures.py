"""The content of equity.csv and metrics.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from finseek.backtest import benchmarks, intervals, nulls, performance
from finseek.backtest.ledger import attribution, round_trips
from finseek.backtest.options import BacktestOptions
from finseek.backtest.signals import SignalGrid
from finseek.backtest.simulate import Account
from finseek.backtest.tape import Tape

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """What is kept of an account that stands beside: its equity (T+1,) and its measures."""

    equity: Floats
    metrics: dict[str, Any]


def curve_of(account: Account, options: BacktestOptions) -> Curve:
    """The curve of a benchmark."""
    return Curve(account.equity, performance.account_metrics(account, options.risk_free))


def curve_with_trades(account: Account, tape: Tape, options: BacktestOptions) -> Curve:
    """The curve of another reading of the same signals, with the measures of its round trips."""
    return Curve(account.equity, _measures(account, round_trips(account, tape), options))


def collect(
    *,
    signals: dict[str, int],
    account: Account,
    tape: Tape,
    trades: pl.DataFrame,
    rejected: pl.DataFrame,
    other: dict[str, Curve],
    beside: dict[str, Curve],
    null: Floats,
    options: BacktestOptions,
) -> dict[str, Any]:
    """All measures of a backtest, JSON-able, null where undefined.

    Args:
        signals: counts of the signals.
        account: the account that traded them.
        tape: the prices it traded on.
        trades: its round trips.
        rejected: its orders that did not fill as wanted.
        other: the curve under the other meaning of HOLD.
        beside: the curves of the benchmarks.
        null: Sharpe ratios of the null books.
        options: the options.
    """
    ours = _measures(account, trades, options)
    r = performance.returns_of(account.equity)
    draws = intervals.draw_sessions(len(r), options)
    against = "index" if "index" in beside else "all_buy"
    return {
        "window": _window(tape),
        "signals": signals,
        "performance": ours,
        "hold": {options.hold: ours, **{hold: one.metrics for hold, one in other.items()}},
        "benchmarks": {
            name: {
                **one.metrics,
                "return_difference_annual": intervals.annual_mean(r - performance.returns_of(one.equity), draws),
            }
            for name, one in beside.items()
        },
        "relative": {
            "benchmark": against,
            **performance.relative_metrics(r, performance.returns_of(beside[against].equity), options.risk_free),
        },
        "intervals": {
            "sharpe": intervals.annual_sharpe(r, draws, options.risk_free),
            "return_annual": intervals.annual_mean(r, draws),
        },
        "excess": _excess(account, tape, draws),
        "nulls": nulls.summary(ours["sharpe"], null),
        "months": performance.period_returns(tape.dates, account.equity, "M"),
        "years": performance.period_returns(tape.dates, account.equity, "Y"),
        "drawdowns": performance.worst_drawdowns(tape.dates, account.equity),
        "attribution": attribution(account, tape, trades),
        "capacity": performance.capacity(account, tape),
        "orders": _order_counts(account, rejected),
        "options": options.model_dump(mode="json"),
    }


def signal_counts(given: int, grid: SignalGrid) -> dict[str, int]:
    """Where the signals went: given = traded + no_signal + unexecuted."""
    return {
        "given": given,
        "traded": int(grid.present.sum()),
        "no_signal": grid.without_opinion,
        "unexecuted": len(grid.unexecuted),
        "cells_without_signal": int((~grid.present).sum()),
    }


def equity_table(account: Account, tape: Tape, beside: dict[str, Curve]) -> pl.DataFrame:
    """The content of equity.csv: the account by row, and the equity of what stands beside it."""
    gross, net = performance.exposure(account)
    return pl.DataFrame(
        {
            "date": tape.dates,
            "equity": account.equity,
            "equity_at_open": account.equity_at_open,
            "cash": account.cash,
            "gross_exposure": gross,
            "net_exposure": net,
            "turnover": performance.turnover(account),
            "commission": account.commission.sum(axis=-1),
            "slippage": account.slippage.sum(axis=-1),
            "drawdown": performance.drawdown(account.equity),
            **{name: other.equity for name, other in beside.items()},
        }
    )


def _window(tape: Tape) -> dict[str, Any]:
    sessions = len(tape.dates) - 1
    return {
        "first_decision": str(tape.dates[0]),
        "first_fill": str(tape.dates[1]),
        "last": str(tape.dates[-1]),
        "sessions": sessions,
        "tickers": len(tape.tickers),
        "sharpe_standard_error": performance.sharpe_standard_error(sessions),
        "smallest_detectable_sharpe": performance.smallest_detectable_sharpe(sessions),
    }


def _order_counts(account: Account, rejected: pl.DataFrame) -> dict[str, int]:
    reasons = dict(rejected.group_by("reason").len().sort("reason").iter_rows())
    return {"filled": int((account.traded != 0).sum()), **{f"rejected: {name}": n for name, n in reasons.items()}}


def _measures(account: Account, trades: pl.DataFrame, options: BacktestOptions) -> dict[str, Any]:
    closed = trades.filter(pl.col("exit_date").is_not_null())
    profits = closed["profit"].to_numpy()
    return {
        **performance.account_metrics(account, options.risk_free),
        "hit_rate_trades": performance.hit_rate(profits),
        "profit_factor": performance.profit_factor(profits),
        "trades_closed": closed.height,
        "trades_open": trades.height - closed.height,
    }


def _excess(account: Account, tape: Tape, draws: Floats) -> dict[str, Any]:
    """What the account earned beyond its net exposure to the universe."""
    excess = benchmarks.exposure_matched_excess(account, tape)
    return {
        "mean_daily": float(excess.mean()),
        "annual": intervals.annual_mean(excess, draws),
        "sharpe": performance.sharpe_ratio(excess),
    }
