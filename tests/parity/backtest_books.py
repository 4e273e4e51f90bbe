"""Random prices and books on which the account meets vectorbt: the same wherever they are drawn."""

from __future__ import annotations

import numpy as np

LARGE = (2521, 500)
REAL_ROWS = 377
STRIDE = 280  # rows between the equities of the large book that are kept


def walk(rng, rows, names):
    """Opens and closes (rows, names) of random walks."""
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, (rows, names)), axis=0))
    return np.vstack([close[:1], close[:-1]]) * np.exp(rng.normal(0, 0.01, (rows, names))), close


def books(rng, rows, names):
    """Random weights that never need more than the cash: long or flat, long or short, some without an order."""
    long_flat = rng.integers(0, 2, (rows, names)) * 0.9 / names
    long_short = rng.uniform(-1, 1, (rows, names)) * 0.5 / names
    kept = np.where(rng.random((rows, names)) < 0.3, np.nan, long_flat)
    return {"long or flat": long_flat, "long or short": long_short, "with names left alone": kept}


def large():
    """Opens, closes and books of 500 names on 2,520 decisions."""
    rng = np.random.default_rng(1)
    open_, close = walk(rng, *LARGE)
    return open_, close, books(rng, LARGE[0] - 1, LARGE[1])
