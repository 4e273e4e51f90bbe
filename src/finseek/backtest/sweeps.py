"""Many settings on the same signals: the returns and measures of every point of a grid.

Legend: P points, T decision sessions, N tickers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import ValidationError

from finseek.backtest import performance
from finseek.backtest.kernel import have_numba, is_plain, numba_equity
from finseek.backtest.options import BacktestOptions
from finseek.backtest.run import window_tape
from finseek.backtest.signals import Signal, SignalGrid, signal_grid
from finseek.backtest.simulate import simulate_equity
from finseek.backtest.tape import Tape
from finseek.backtest.targets import target_weights
from finseek.core import artifacts
from finseek.core.errors import ConfigError
from finseek.core.progress import Progress, silent
from finseek.core.sessions import Dates
from finseek.market import Prices

Floats = NDArray[np.float64]
_WORTH_COMPILING = 50_000_000  # cells: below, NumPy is done before Numba has compiled
_BATCH_CELLS = 20_000_000
_OF_TAPE = ("execution", "dividends", "actions_file", "delisting_loss", "volatility_window")
_OF_ACCOUNT = (
    "costs",
    "limits",
    "fractional",
    "no_trade_band",
    "capital",
    "transaction_cost",
    "slippage",
    "allow_leverage",
    "risk_free",
    "nulls",
    "null_seed",
    "bootstrap_resamples",
    "mean_block",
)


@dataclass(frozen=True)
class SweepResult:
    """The points of a sweep.

    Attributes:
        points: the swept keys and values of each point, P of them.
        options: the options of each point.
        dates: datetime64[D] (T,), the sessions of the returns.
        returns: (T, P) close-to-close returns: the trials of the statistics of overfitting.
        metrics: one line a point: the swept keys, then total_return, annual_return, volatility, sharpe, sortino,
            max_drawdown, calmar, omega, var_95, cvar_95, hit_rate_days.
    """

    points: tuple[dict[str, Any], ...]
    options: tuple[BacktestOptions, ...]
    dates: Dates
    returns: Floats
    metrics: pl.DataFrame

    def heat_map(self, across: str, down: str, metric: str = "sharpe") -> pl.DataFrame:
        """Mean of a metric by two swept keys: a line for each value of ``down``, a column for each of ``across``.

        Raises:
            ConfigError: a key that was not swept or a metric that there is not.
        """
        for name in (across, down, metric):
            if name not in self.metrics.columns:
                raise ConfigError(f"{name!r} is no column of the sweep: choose among {', '.join(self.metrics.columns)}")
        return self.metrics.pivot(on=across, index=down, values=metric, aggregate_function="mean").sort(down)


def sweep(
    signals: Sequence[Signal],
    prices: Prices,
    options: BacktestOptions | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    progress: Progress = silent,
) -> SweepResult:
    """Backtest every combination of the values of some keys.

    Args:
        signals: as for ``run_backtest``.
        prices: the price table; its tickers are the universe.
        options: what all points share.
        grid: the values of each key, keys as in the config below ``backtest``: ``slippage``, ``limits.max_gross``.
        progress: told of the points.

    Raises:
        ConfigError: an unknown key, a value or a combination that the options refuse, a key without values.
        InputError: as ``run_backtest``.
    """
    base = BacktestOptions() if options is None else options
    points = _points(grid or {})
    chosen = [with_values(base, point) for point in points]
    placed = signal_grid(signals, prices.sessions, prices.tickers)
    equity = sweep_equity(placed, prices, chosen, progress)
    dates = prices.sessions.dates[placed.first + 1 : placed.first + 1 + len(placed.rank)]
    returns = np.stack([performance.returns_of(curve) for curve in equity], axis=1)
    lines = [
        {**{k: _cell(v) for k, v in point.items()}, **performance.curve_metrics(curve, o.risk_free)}
        for point, curve, o in zip(points, equity, chosen, strict=True)
    ]
    return SweepResult(points, tuple(chosen), dates, returns, pl.DataFrame(lines, infer_schema_length=None))


def write_sweep(result: SweepResult, folder: Path) -> None:
    """Write sweep.csv, a line a point with its keys and measures, and returns.csv, a line a session.

    The columns of returns.csv beside ``date`` are the points, numbered from 0 as the lines of sweep.csv. Where two
    keys or more were swept, heat_map.csv holds the Sharpe ratios by the first (across) and the second (down).
    """
    returns = pl.DataFrame({"date": result.dates, **{str(p): column for p, column in enumerate(result.returns.T)}})
    artifacts.write_text(folder / "sweep.csv", result.metrics.write_csv())
    artifacts.write_text(folder / "returns.csv", returns.write_csv())
    across, down = (*result.points[0], None, None)[:2]
    if across and down:
        artifacts.write_text(folder / "heat_map.csv", result.heat_map(across, down).write_csv())


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value, sort_keys=True)


def _points(grid: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Any], ...]:
    for key, values in grid.items():
        if isinstance(values, str) or not hasattr(values, "__len__") or not len(values):
            raise ConfigError(f"sweep key {key!r} has no list of values: give at least one, as in {key}=[0.0, 0.001]")
    return tuple(dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values()))


def with_values(options: BacktestOptions, values: Mapping[str, Any]) -> BacktestOptions:
    """Options with some keys changed, validated as a whole; ``limits.max_gross`` reaches into a part.

    Raises:
        ConfigError: an unknown key or a value that the options refuse.
    """
    tree = options.model_dump(mode="json")
    for key, value in values.items():
        *parts, last = key.split(".")
        node: Any = tree
        for part in parts:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            near = get_close_matches(last, node if isinstance(node, dict) else tree, 1)
            hint = f"the nearest is {'.'.join([*parts, *near])}" if near else "choose one of its section of the config"
            raise ConfigError(f"backtest has no key {key!r}: {hint}")
        node[last] = value
    try:
        return BacktestOptions.model_validate_json(json.dumps(tree))
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"backtest.{where or 'options'}: {first['msg']} (value {first['input']!r:.80})") from None


def sweep_equity(
    grid: SignalGrid, prices: Prices, options: Sequence[BacktestOptions], progress: Progress = silent
) -> Floats:
    """Equity (P, T+1) of each point; points that share a tape or a weight matrix share its computation."""
    equity = np.empty((len(options), len(grid.rank) + 1))
    tapes: dict[str, list[int]] = {}
    for p, one in enumerate(options):
        key = json.dumps([one.model_dump(mode="json", include=set(_OF_TAPE)), one.limits.volume_window])
        tapes.setdefault(key, []).append(p)
    done = 0
    for members in tapes.values():
        tape = window_tape(grid, prices, options[members[0]])
        fast = [p for p in members if is_plain(tape, options[p])]
        if len(fast) * grid.rank.size < _WORTH_COMPILING or not have_numba():
            fast = []
        for p, curve in _plain_equity(grid, tape, options, fast):
            equity[p] = curve
        done += len(fast)
        weights, key = np.empty(0), ""
        for p in sorted(set(members) - set(fast)):
            if (wanted := _book_key(options[p])) != key:
                weights, key = target_weights(grid, tape, options[p]), wanted
            equity[p] = simulate_equity(weights, tape, options[p])
            done += 1
            progress("sweep", done, len(options), "points")
    return equity


def _book_key(options: BacktestOptions) -> str:
    """Equal for options that make the same weights of the same signals and tape."""
    return options.model_dump_json(exclude=set(_OF_ACCOUNT))


def _plain_equity(
    grid: SignalGrid, tape: Tape, options: Sequence[BacktestOptions], members: list[int]
) -> list[tuple[int, Floats]]:
    """Equity of points that the compiled kernel can do, a few weight matrices at a time."""
    books: dict[str, list[int]] = {}
    for p in members:
        books.setdefault(_book_key(options[p]), []).append(p)
    at_once = max(1, _BATCH_CELLS // grid.rank.size)
    found: list[tuple[int, Floats]] = []
    groups = list(books.values())
    for start in range(0, len(groups), at_once):
        batch = groups[start : start + at_once]
        weights = np.stack([target_weights(grid, tape, options[group[0]]) for group in batch])
        order = [p for group in batch for p in group]
        which = np.repeat(np.arange(len(batch)), [len(group) for group in batch])
        curves = numba_equity(weights, which, tape, [options[p] for p in order])
        found += zip(order, curves, strict=True)
    return found
