"""The backtest: signals and prices in, the account and its measures out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from finseek.backtest import benchmarks, measures, nulls
from finseek.backtest.corporate import CorporateActions, read_actions
from finseek.backtest.ledger import fills, ledger, rejects, round_trips
from finseek.backtest.options import BacktestOptions
from finseek.backtest.signals import Signal, SignalGrid, signal_grid
from finseek.backtest.simulate import Account, simulate
from finseek.backtest.tape import Tape, build_tape
from finseek.backtest.targets import target_weights
from finseek.core import artifacts
from finseek.core.errors import InputError
from finseek.core.progress import Progress, silent
from finseek.market import Prices

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BacktestResult:
    """A backtest over T+1 rows.

    Attributes:
        equity: date, equity, equity_at_open, cash, gross_exposure, net_exposure, turnover, commission, slippage,
            drawdown, and beside it the equity of each benchmark and of the other meaning of HOLD.
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

    def ledger(self) -> pl.DataFrame:
        """Every position, order and payment of every session (see ``ledger.ledger``)."""
        return ledger(self.account, self.tape)


def run_backtest(
    signals: Sequence[Signal],
    prices: Prices,
    options: BacktestOptions | None = None,
    *,
    teacher: Sequence[Signal] | None = None,
    actions: CorporateActions | None = None,
    progress: Progress = silent,
) -> BacktestResult:
    """Trade signals on prices.

    The universe is ``prices.tickers``: ``equal_weight`` is one over their number (restrict with ``prices.of``).

    Args:
        signals: unique by ticker and date, the dates of a ticker increasing.
        prices: the price table.
        options: the defaults where None.
        teacher: signals to trade beside, as benchmark ``teacher``, over the same window.
        actions: cash dividends and splits for ``dividends: cash``; read from ``actions_file`` where None.
        progress: told of the null books.

    Raises:
        InputError: signals or prices that break a rule (see ``signal_grid``, ``check_prices``).
    """
    options = BacktestOptions() if options is None else options
    grid = signal_grid(signals, prices.sessions, prices.tickers)
    tape = window_tape(grid, prices, options, actions)
    weights = target_weights(grid, tape, options)
    account = simulate(weights, tape, options)
    other_hold = {"flat": "keep", "keep": "flat"}[options.hold]
    other_weights = target_weights(grid, tape, options.model_copy(update={"hold": other_hold}))
    other = measures.curve_with_trades(simulate(other_weights, tape, options), tape, options)
    beside = {
        name: measures.curve_of(simulate(book, tape, options), options)
        for name, book in _benchmark_books(grid, prices, tape, options, teacher)
    }
    index = _index_account(grid, prices, options)
    if index is not None:
        beside["index"] = measures.curve_of(index, options)
    trades, rejected = round_trips(account, tape), rejects(account, tape)
    rng = np.random.default_rng(options.null_seed)
    null = nulls.null_sharpes(weights, tape, options, options.nulls, rng, progress)
    metrics = measures.collect(
        signals=measures.signal_counts(len(signals), grid),
        account=account,
        tape=tape,
        trades=trades,
        rejected=rejected,
        other={other_hold: other},
        beside=beside,
        null=null,
        options=options,
    )
    return BacktestResult(
        measures.equity_table(account, tape, {**beside, f"hold_{other_hold}": other}),
        trades,
        fills(account, tape),
        rejected,
        grid.unexecuted,
        weights,
        metrics,
        account,
        tape,
        options,
    )


def window_tape(
    grid: SignalGrid, prices: Prices, options: BacktestOptions, actions: CorporateActions | None = None
) -> Tape:
    """The tape of the window that a grid of signals spans."""
    if options.dividends == "cash" and actions is None:
        if options.actions_file is None:
            raise InputError(
                "backtest.dividends: cash needs an actions file: adjusted prices already hold the dividends"
            )
        actions = read_actions(options.actions_file, prices)
    return build_tape(prices, grid.first, len(grid.rank), options, actions)


def _benchmark_books(
    grid: SignalGrid, prices: Prices, tape: Tape, options: BacktestOptions, teacher: Sequence[Signal] | None
) -> list[tuple[str, Floats]]:
    steps, names = grid.rank.shape
    books = [
        ("buy_and_hold", benchmarks.buy_and_hold(steps, names)),
        ("all_buy", benchmarks.all_buy(steps, names)),
        ("momentum", benchmarks.momentum(prices, grid.first, steps, options.momentum_window)),
        ("reversal", benchmarks.reversal(prices, grid.first, steps, options.reversal_window)),
        ("cash_only", benchmarks.cash_only(steps, names)),
    ]
    if teacher is not None:
        theirs = signal_grid(teacher, prices.sessions, prices.tickers).window(grid.first, steps)
        books.append(("teacher", target_weights(theirs, tape, options)))
    return books


def _index_account(grid: SignalGrid, prices: Prices, options: BacktestOptions) -> Account | None:
    """Buy and hold of the benchmark of the price table, where it has one that quotes the first fill.

    It fills and pays as the strategy does, market impact left out, for an index needs no volume; no limit holds it.
    """
    if prices.benchmark is None:
        return None
    plain = BacktestOptions(
        capital=options.capital,
        transaction_cost=options.transaction_cost,
        slippage=options.slippage,
        costs=options.costs.model_copy(update={"impact": 0.0}),
        execution=options.execution,
        nulls=0,
    )
    tape = build_tape(prices.benchmark, grid.first, len(grid.rank), plain)
    if not tape.tradable[1, 0]:
        return None
    return simulate(benchmarks.buy_and_hold(len(grid.rank), 1), tape, plain)


def exposure_matched_excess(result: BacktestResult) -> Floats:
    """Return of each session beyond its net exposure to the equal-weight universe: (T,), see ``benchmarks``."""
    return benchmarks.exposure_matched_excess(result.account, result.tape)


def write_result(result: BacktestResult, folder: Path) -> None:
    """Write equity.csv, trades.csv, metrics.json, and what an auditor asks for: all that the account did and could not.

    The latter are ledger.csv, fills.csv, rejected.csv and unexecuted.csv. Each file is written whole or not at all.
    """
    late = [
        {"ticker": s.ticker, "as_of_date": s.as_of_date, "action": s.action, "weight": s.weight}
        for s in result.unexecuted
    ]
    schema = {"ticker": pl.String, "as_of_date": pl.Date, "action": pl.String, "weight": pl.Float64}
    tables = {
        "equity.csv": result.equity,
        "trades.csv": result.trades,
        "ledger.csv": result.ledger(),
        "fills.csv": result.fills,
        "rejected.csv": result.rejected,
        "unexecuted.csv": pl.DataFrame(late, schema=schema),
    }
    for name, table in tables.items():
        artifacts.write_text(folder / name, table.write_csv())
    artifacts.write_json(folder / "metrics.json", result.metrics)
