"""Snapshots and forward returns of 500 tickers x 2,520 sessions against the same features by pandas groupby.

Two versions by pandas: ``groupby(...).transform(lambda s: ...)``, the straightforward one, and ``groupby(...).rolling``
without a lambda, the best one. All run in turn in this process, after a warm-up on a small table; CPU seconds of this
process, and ratios within a turn. Peak memory is that of a process that only makes the table and runs ours.

    python benchmarks/market_snapshots.py [--out FILE.json] [--tickers 500] [--sessions 2520] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from math import sqrt
from pathlib import Path

import numpy as np

from finseek.market import Prices, forward_returns, generate_prices, snapshots

HORIZONS = (1, 5, 10, 30)


def pandas_table(prices: Prices):
    """The long table that a pandas user starts from."""
    import pandas as pd

    column, row = np.nonzero(prices.has_bar.T)
    return pd.DataFrame(
        {
            "ticker": np.array(prices.tickers)[column],
            "date": prices.sessions.dates[row],
            **{
                name: getattr(prices, name)[row, column]
                for name in ("open", "high", "low", "close", "volume", "adjusted_close")
            },
        }
    )


def by_transform(by):
    """Operations by ticker as most people write them: a lambda for each group."""

    def each(work):
        return lambda series, *n: series.groupby(by, sort=False).transform(lambda s: work(s, *n))

    return {
        "change": each(lambda s, n: s.pct_change(n)),
        "shift": each(lambda s, n: s.shift(n)),
        "mean": each(lambda s, n: s.rolling(n).mean()),
        "sum": each(lambda s, n: s.rolling(n).sum()),
        "std": each(lambda s, n: s.rolling(n).std()),
        "min": each(lambda s, n: s.rolling(n).min()),
        "max": each(lambda s, n: s.rolling(n).max()),
        "ewm": each(lambda s: s.ewm(span=20).mean()),
        "cut_ewm": each(lambda s: s.rolling(60).apply(_cut_ewm, raw=True)),
    }


def by_rolling(by):
    """The same without a lambda: pandas's own loops over the groups, the best that pandas can do."""

    def rolled(name):
        return lambda series, n: getattr(series.groupby(by, sort=False).rolling(n), name)().reset_index(
            level=0, drop=True
        )

    return {
        "change": lambda series, n: series.groupby(by, sort=False).pct_change(n),
        "shift": lambda series, n: series.groupby(by, sort=False).shift(n),
        **{name: rolled(name) for name in ("mean", "sum", "std", "min", "max")},
        "ewm": lambda series: series.groupby(by, sort=False).ewm(span=20).mean().reset_index(level=0, drop=True),
    }


def _cut_ewm(x):
    weights = (1 - 2 / 21) ** np.arange(60)[::-1]
    return x @ weights / weights.sum()


def pandas_features(table, style=by_transform, ema: str = "ewm") -> dict:
    """The features, one column after the other.

    Args:
        table: as ``pandas_table`` gives it, by ticker and date.
        style: how to work by ticker.
        ema: ``ewm`` pandas's own recursion; ``cut_ewm`` cut at 60 bars as the snapshot does (slow).
    """
    factor = table["adjusted_close"] / table["close"]
    close, high, low = table["adjusted_close"], table["high"] * factor, table["low"] * factor
    open_ = table["open"] * factor
    do = style(table["ticker"])
    out = {f"ret{n}": do["change"](close, n) for n in (1, 2, 3, 5, 10, 20, 60)}
    out["day"] = close / open_ - 1
    out["gap"] = open_ / do["shift"](close, 1) - 1
    out["range"] = np.log(high / low)
    out["pos"] = (close - low) / (high - low)
    for n in (5, 20, 50):
        out[f"sma{n}"] = close / do["mean"](close, n) - 1
    out["ema20"] = close / do[ema](close) - 1
    change = close - do["shift"](close, 1)
    gain, loss = do["sum"](change.clip(lower=0), 14), do["sum"]((-change).clip(lower=0), 14)
    out["rsi14"] = 100 * gain / (gain + loss)
    out["vol20"] = do["std"](np.log(close) - do["shift"](np.log(close), 1), 20)
    money = table["close"] * table["volume"]
    out["money20"] = money / do["mean"](money, 20)
    lowest, highest = do["min"](close, 252), do["max"](close, 252)
    out["pos252"] = (close - lowest) / (highest - lowest)
    return out


STYLES = {"pandas_transform": by_transform, "pandas_rolling": by_rolling}


def pandas_scaled(out: dict) -> dict:
    """The same features divided by the volatility as of the session, as the prompt shows them."""
    vol = out["vol20"]
    sma = {n: sqrt((n - 1) * (2 * n - 1) / (6 * n)) for n in (5, 20, 50)}
    decay = (1 - 2 / 21) ** 2
    factor = {f"ret{n}": sqrt(n) for n in (1, 2, 3, 5, 10, 20, 60)}
    factor |= {f"sma{n}": value for n, value in sma.items()}
    factor |= {"ema20": sqrt(decay / (1 - decay)), "day": 0.9, "gap": 0.5}
    scaled = {name: np.log1p(out[name]) / (vol * value) for name, value in factor.items()}
    scaled["range"] = np.log(out["range"] / (1.2 * vol)) / 0.45
    scaled["rsi14"] = (out["rsi14"] - 50) / 17
    scaled["vol20"] = np.log(vol * sqrt(252) / 0.25) / 0.4
    scaled["money20"] = np.log(out["money20"]) / 0.35
    return scaled | {name: out[name] for name in ("pos", "pos252")}


def pandas_returns(table, style=by_transform) -> dict:
    """Forward returns by ticker; right where no ticker misses a session."""
    shift = style(table["ticker"])["shift"]
    entry = table["open"] * table["adjusted_close"] / table["close"]
    return {h: shift(entry, -1 - h) / shift(entry, -1) - 1 for h in HORIZONS}


def ours(prices: Prices) -> None:
    """What a run needs of a table."""
    snapshots(prices)
    forward_returns(prices, HORIZONS)


def cpu_seconds(work, *arguments) -> float:
    """CPU seconds of this process over a call."""
    began = time.process_time()
    work(*arguments)
    return time.process_time() - began


def theirs(table, style=by_transform) -> None:
    """The same by pandas."""
    with np.errstate(divide="ignore", invalid="ignore"):
        pandas_scaled(pandas_features(table, style))
        pandas_returns(table, style)


def fresh(prices: Prices) -> Prices:
    """The same table without anything that was computed from it before."""
    return prices.of(prices.tickers)


def peak_memory(tickers: int, sessions: int) -> float:
    """Peak resident memory in MiB of a process that makes the table and runs ours."""
    code = (
        "import sys, resource; sys.path.insert(0, sys.argv[3]); import market_snapshots as m\n"
        "prices = m.generate_prices(0, int(sys.argv[1]), int(sys.argv[2]))[0]; m.ours(prices)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tickers), str(sessions), folder], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tickers", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=2520)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    small = generate_prices(1, 5, 300)[0]
    ours(small)
    for style in STYLES.values():
        theirs(pandas_table(small), style)
    prices = generate_prices(0, options.tickers, options.sessions)[0]
    table = pandas_table(prices)
    seconds: dict[str, list[float]] = {"ours": [], **{name: [] for name in STYLES}}
    for _ in range(options.repeats):
        seconds["ours"].append(cpu_seconds(ours, fresh(prices)))
        for name, style in STYLES.items():
            seconds[name].append(cpu_seconds(theirs, table, style))
    ratios = {name: sorted(np.array(seconds[name]) / np.array(seconds["ours"])) for name in STYLES}
    result = {
        "benchmark": "market_snapshots",
        "tickers": options.tickers,
        "sessions": options.sessions,
        "cpu_seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "ratio": {
            name: {"median": round(statistics.median(values), 1), "range": [round(values[0], 1), round(values[-1], 1)]}
            for name, values in ratios.items()
        },
        "ours_peak_mib": round(peak_memory(options.tickers, options.sessions)),
        "environment": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pandas": __import__("pandas").__version__,
            "machine": platform.machine(),
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
