"""How fast the statistics are: PBO beside plain NumPy, and all metrics of an evaluation with their bootstrap.

    python benchmarks/stats_speed.py [--repeats 5] [--out FILE.json]

The rows of the evaluation are drawn to the size of the real test split: 1,516 rows, 77 sessions, 20 tickers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from finseek.core.actions import ACTIONS
from finseek.evaluate import EvaluateOptions, Prediction, score_predictions
from finseek.market import generate_prices
from finseek.stats import pbo


def plain_pbo(r: np.ndarray, blocks: int) -> float:
    """The textbook loop on per-block sums, one halving at a time."""
    parts = np.array_split(r, blocks)
    n = np.array([len(part) for part in parts])
    s, q = (np.array([(part**k).sum(0) for part in parts]) for k in (1, 2))
    below = 0
    ways = list(combinations(range(blocks), blocks // 2))
    for chosen in ways:
        ratios = []
        for rows in (list(chosen), [i for i in range(blocks) if i not in chosen]):
            m = n[rows].sum()
            mean = s[rows].sum(0) / m
            ratios.append(mean / np.sqrt((q[rows].sum(0) - m * mean**2) / (m - 1)))
        best = ratios[0].argmax()
        below += (1 + (ratios[1] < ratios[1][best]).sum()) / (r.shape[1] + 1) <= 0.5
    return below / len(ways)


def evaluation() -> tuple[list[Prediction], Any]:
    """1,516 rows with probabilities on 77 sessions and 20 tickers, and their prices."""
    prices, _ = generate_prices(0, n_tickers=20, n_sessions=200)
    rng = np.random.default_rng(0)
    rows = []
    for day in prices.sessions.dates[80:157]:
        for ticker in prices.tickers:
            p = rng.dirichlet(np.ones(5))
            told = dict(zip(ACTIONS, map(float, p), strict=True))
            rows.append(Prediction(ticker, day.item(), ACTIONS[rng.integers(5)], ACTIONS[p.argmax()], "scored", told))
    return rows[:1516], prices


def seconds(work: Callable[[], Any], repeats: int) -> list[float]:
    """Wall seconds of each repeat."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    r = np.random.default_rng(0).normal(0, 0.01, (2400, 100))
    assert plain_pbo(r, 16) == pbo(r, 16).pbo
    rows, prices = evaluation()
    options = EvaluateOptions(bootstrap_resamples=10_000)
    pairs = [(seconds(lambda: pbo(r, 16), 1)[0], seconds(lambda: plain_pbo(r, 16), 1)[0]) for _ in range(given.repeats)]
    ratios = [plain / ours for ours, plain in pairs]
    all_metrics = seconds(lambda: score_predictions(rows, prices, options, history=()), given.repeats)
    result = {
        "pbo_seconds": statistics.median(ours for ours, _ in pairs),
        "pbo_plain_numpy_seconds": statistics.median(plain for _, plain in pairs),
        "pbo_ratio": [min(ratios), statistics.median(ratios), max(ratios)],
        "all_metrics_10000_resamples_seconds": [min(all_metrics), statistics.median(all_metrics), max(all_metrics)],
        "environment": {"cpu": platform.machine(), "cores": os.cpu_count(), "numpy": np.__version__},
    }
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
