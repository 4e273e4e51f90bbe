"""The backtest: signals and prices in, the account and its measures out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from finseek.backtest import benchmarks, ledger, performance
from finseek.backtest.options import BacktestOptions
from finseek.backtest.positions import directions, given_weights
from finseek.backtest.signals import Signal, SignalGrid, signal_grid
from finseek.backtest.simulate import Account, simulate
from finseek.backtest.sizing import SIZING
from finseek.backtest.tape import Tape, build_tape
from finseek.core import artifacts
from finseek.market import Prices

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BacktestResult:
    """A backtest over T+1 rows.

    Attributes:
        equity: date, equity, equity_at_open, cash, gross_exposure, net_exposure, turnover, commission, slippage,
            drawdown, and beside it the equity of buy_and_hold, all_buy and the other meaning of HOLD.
        trades: one line a round trip (see ``ledger.round_trips``).
        fills: one line a fill.
        rejected: one line an order that did not fill as wanted.
        unexecuted: signals without a next session.
        weights: (T, N) target weights; NaN is no order.
        metrics: the content of metrics.json.
        account: the whole account, with arrays of shape (T+1,) and (T+1, N).
        tape: the prices it traded on.
        options: the options it ran with.
    """

    equity: pl.DataFrame
    trades: pl.DataFrame
    fills: pl.DataFrame
    rejected: pl.DataFrame
    unexecuted: tuple[Signal, ...]
    weights: Floats
    metrics: dict[str, Any]
    account: Account
    tape: Tape
    options: BacktestOptions


def target_weights(grid: SignalGrid, options: BacktestOptions) -> Floats:
    """Target weights (T, N) of a grid of signals; NaN is no order. A signal that gives a weight is not sized."""
    if not np.isnan(grid.weight).all():
        return given_weights(grid, options)
    return SIZING[options.sizing_strategy](directions(grid, options), options)


def run_backtest(signals: Sequence[Signal], prices: Prices, options: BacktestOptions | None = None) -> BacktestResult:
    """Trade signals on prices.

    The universe is ``prices.tickers``: ``equal_weight`` is one over their number (restrict with ``prices.of``).

    Args:
        signals: unique by ticker and date, the dates of a ticker increasing.
        prices: the price table.
        options: the defaults where None.

    Raises:
        InputError: signals or prices that break a rule (see ``signal_grid``, ``check_prices``).
    """
    options = BacktestOptions() if options is None else options
    grid = signal_grid(signals, prices.sessions, prices.tickers)
    tape = build_tape(prices, grid.first, len(grid.rank))
    weights = target_weights(grid, options)
    account = simulate(weights, tape, options)
    other_hold = {"flat": "keep", "keep": "flat"}[options.hold]
    other = simulate(target_weights(grid, options.model_copy(update={"hold": other_hold})), tape, options)
    shape = weights.shape
    beside = {
        "buy_and_hold": simulate(benchmarks.buy_and_hold(*shape), tape, options),
        "all_buy": simulate(benchmarks.all_buy(*shape), tape, options),
    }
    trades = ledger.round_trips(account, tape)
    metrics = {
        "window": _window(tape),
        "signals": _signal_counts(signals, grid),
        "performance": _measures(account, trades, options),
        "hold": {
            options.hold: _measures(account, trades, options),
            other_hold: _measures(other, ledger.round_trips(other, tape), options),
        },
        "benchmarks": {name: performance.account_metrics(curve, options.risk_free) for name, curve in beside.items()},
        "excess": _excess(account, tape),
        "options": options.model_dump(mode="json"),
    }
    rejected = ledger.rejects(account, tape)
    metrics["orders"] = _order_counts(account, rejected)
    equity = _equity_table(account, tape, {**beside, f"hold_{other_hold}": other})
    lines = ledger.fills(account, tape)
    return BacktestResult(equity, trades, lines, rejected, grid.unexecuted, weights, metrics, account, tape, options)


def exposure_matched_excess(result: BacktestResult) -> Floats:
    """Return of each session beyond its net exposure to the equal-weight universe: (T,), see ``benchmarks``."""
    return benchmarks.exposure_matched_excess(result.account, result.tape)


def write_result(result: BacktestResult, folder: Path) -> None:
    """Write equity.csv, trades.csv and metrics.json, each whole or not at all."""
    artifacts.write_text(folder / "equity.csv", result.equity.write_csv())
    artifacts.write_text(folder / "trades.csv", result.trades.write_csv())
    artifacts.write_json(folder / "metrics.json", result.metrics)


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


def _signal_counts(signals: Sequence[Signal], grid: SignalGrid) -> dict[str, int]:
    unexecuted, silent = len(grid.unexecuted), int((~grid.present).sum())
    return {
        "given": len(signals),
        "traded": int(grid.present.sum()),
        "no_signal": grid.without_opinion,
        "unexecuted": unexecuted,
        "cells_without_signal": silent,
    }


def _order_counts(account: Account, rejected: pl.DataFrame) -> dict[str, int]:
    reasons = dict(rejected.group_by("reason").len().sort("reason").iter_rows())
    return {"filled": int((account.traded != 0).sum()), **{f"rejected: {name}": n for name, n in reasons.items()}}


def _measures(account: Account, trades: pl.DataFrame, options: BacktestOptions) -> dict[str, Any]:
    closed = trades.filter(pl.col("exit_date").is_not_null())
    return {
        **performance.account_metrics(account, options.risk_free),
        "hit_rate_trades": performance.hit_rate(closed["profit"].to_numpy()),
        "trades_closed": closed.height,
        "trades_open": trades.height - closed.height,
    }


def _excess(account: Account, tape: Tape) -> dict[str, Any]:
    excess = benchmarks.exposure_matched_excess(account, tape)
    return {
        "mean_daily": float(excess.mean()),
        "annual": float(excess.mean()) * performance.YEAR,
        "sharpe": performance.sharpe_ratio(excess),
    }


def _equity_table(account: Account, tape: Tape, beside: dict[str, Account]) -> pl.DataFrame:
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
