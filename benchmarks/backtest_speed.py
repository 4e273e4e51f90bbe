"""How fast the account is, beside vectorbt where it is installed: same arrays, one process, runs in pairs.

    python benchmarks/backtest_speed.py [--repeats 5] [--signals FILE --prices FILE] [--out FILE.json]

Prints seconds (median and spread over the repeats) and the ratio of each pair, and writes JSON with the environment.
vectorbt has a Commons Clause in its licence: it is measured against here and used for nothing else. ``--signals`` and
``--prices`` add 1,000 null books of given signals, and the wall time of the command line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from finseek.backtest import kernel, nulls
from finseek.backtest.options import BacktestOptions
from finseek.backtest.simulate import simulate, simulate_equity
from finseek.backtest.tape import build_tape
from finseek.core.sessions import Sessions
from finseek.market import Prices

FEE, SLIP = 0.0005, 0.001
OPTIONS = BacktestOptions(transaction_cost=FEE, slippage=SLIP, shorts=True, nulls=0)


def market(names: int, sessions: int) -> Prices:
    """A random walk of ``sessions`` + 1 rows."""
    rng = np.random.default_rng(1)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, (sessions + 1, names)), axis=0))
    open_ = np.vstack([close[:1], close[:-1]]) * np.exp(rng.normal(0, 0.01, (sessions + 1, names)))
    dates = Sessions.of(np.datetime64("2010-01-01") + np.arange(sessions + 1))
    tickers = tuple(f"T{k:03d}" for k in range(names))
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    return Prices(dates, tickers, open_, high, low, close, np.full(close.shape, 1e6), close)


def vectorbt_run(open_: Any, close: Any, size: Any, fee: float, slip: float) -> float:
    """Last equity of one vectorbt portfolio; the frames are made outside the clock."""
    import vectorbt as vbt

    portfolio = vbt.Portfolio.from_orders(
        close,
        size=size,
        size_type="targetpercent",
        price=open_,
        val_price=open_,
        fees=fee,
        slippage=slip,
        init_cash=100_000.0,
        cash_sharing=True,
        group_by=True,
        call_seq="auto",
        freq="D",
    )
    return float(portfolio.value().iloc[-1])


def pairs(ours: Callable[[], Any], theirs: Callable[[], Any] | None, repeats: int, warm: bool = True) -> dict[str, Any]:
    """Seconds of each, alternating, after one warm-up of each (``warm``: of theirs too); and the ratio of each pair."""
    sides = [side for side in (ours, theirs) if side is not None]
    for side in sides if warm else sides[:1]:
        side()
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for place, side in enumerate(sides):
            begun = time.perf_counter()
            side()
            seconds[place].append(time.perf_counter() - begun)
    found = {"finseek": spread(seconds[0])}
    if theirs is not None:
        found["vectorbt"] = spread(seconds[1])
        found["ratio"] = spread([b / a for a, b in zip(*seconds, strict=True)])
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and largest."""
    return {"median": statistics.median(values), "least": min(values), "largest": max(values)}


def settings() -> list[BacktestOptions]:
    """100 points: ten slippages by ten commissions."""
    return [
        OPTIONS.model_copy(update={"slippage": s / 10_000, "transaction_cost": f / 10_000})
        for s in range(10)
        for f in range(10)
    ]


def measure(names: int, sessions: int, repeats: int, with_vectorbt: bool, sweep_pairs: bool) -> dict[str, Any]:
    """One run and 100 settings on one market."""
    prices = market(names, sessions)
    tape = build_tape(prices, 0, sessions, OPTIONS)
    weights = np.random.default_rng(2).integers(0, 2, (sessions, names)) * 0.9 / names
    found: dict[str, Any] = {}
    one = theirs = None
    if with_vectorbt:
        import pandas as pd

        frames = [pd.DataFrame(x) for x in (prices.adjusted_open, prices.adjusted_close)]
        size = pd.DataFrame(np.vstack([np.full((1, names), np.nan), weights]))

        def one() -> float:
            return vectorbt_run(*frames, size, FEE, SLIP)

        def theirs() -> list[float]:
            return [vectorbt_run(*frames, size, o.transaction_cost, o.slippage) for o in settings()]

        expected = simulate(weights, tape, OPTIONS).equity[-1]
        assert abs(one() / expected - 1) < 1e-10, "the two do not compute the same account"
    found["one run with its ledger"] = pairs(lambda: simulate(weights, tape, OPTIONS), one, repeats)
    found["one run, equity alone"] = pairs(lambda: simulate_equity(weights, tape, OPTIONS), one, repeats)
    stack, which = weights[None], np.zeros(100, dtype=np.int64)
    if kernel.have_numba():
        found["one run, numba"] = pairs(lambda: kernel.numba_equity(stack, which[:1], tape, [OPTIONS]), one, repeats)
        beside, times = (theirs, 1) if sweep_pairs else (None, repeats)
        found["100 settings, numba"] = pairs(
            lambda: kernel.numba_equity(stack, which, tape, settings()), beside, times, warm=False
        )
    found["100 settings, numpy"] = pairs(
        lambda: [simulate_equity(weights, tape, o) for o in settings()], None, max(1, repeats // 2)
    )
    return found


def given(signals: Path, prices: Path, repeats: int) -> dict[str, Any]:
    """1,000 null books of given signals, and the command line on them."""
    from finseek.backtest import read_signals, run_backtest, signal_tickers
    from finseek.market import load_prices

    read = read_signals(signals)
    result = run_backtest(read, load_prices(prices, tickers=signal_tickers(read)), OPTIONS)

    def books() -> Any:
        return nulls.null_sharpes(result.weights, result.tape, result.options, 1000, np.random.default_rng(0))

    def command() -> None:
        with tempfile.TemporaryDirectory() as out:
            line = [sys.executable, "-m", "finseek.cli.main", "backtest", "--signals", str(signals)]
            subprocess.run([*line, "--prices", str(prices), "--out", out], check=True, capture_output=True)

    return {"1,000 null books": pairs(books, None, repeats), "command line, wall": pairs(command, None, repeats)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--without-vectorbt", action="store_true")
    parser.add_argument("--sweep-pairs", action="store_true", help="time vectorbt's 100 settings too: minutes")
    parser.add_argument("--signals", type=Path)
    parser.add_argument("--prices", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with_vectorbt = not asked.without_vectorbt
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    for name in ("numba", "vectorbt"):
        try:
            versions[name] = __import__(name).__version__
        except ImportError:
            with_vectorbt = with_vectorbt and name != "vectorbt"
    found: dict[str, Any] = {
        "environment": {
            **versions,
            "machine": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
        }
    }
    for names, sessions, sweep_pairs in ((20, 376, True), (500, 2520, asked.sweep_pairs)):
        label = f"{names} x {sessions:,}"
        found[label] = measure(names, sessions, asked.repeats, with_vectorbt, sweep_pairs and with_vectorbt)
    if asked.signals and asked.prices:
        found["given signals"] = given(asked.signals, asked.prices, asked.repeats)
    for label, rows in found.items():
        for what, figures in rows.items():
            if isinstance(figures, dict):
                words = ", ".join(
                    f"{who} {x['median']:.4g} ({x['least']:.4g} to {x['largest']:.4g})" for who, x in figures.items()
                )
                print(f"{label}: {what}: {words}")
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
