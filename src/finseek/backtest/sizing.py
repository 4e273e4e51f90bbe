"""Sizing strategies: from the direction of each name to its target weight.

Legend: T decision sessions, N tickers; direction d in {-1, 0, 1} or NaN (no order); weight w, a fraction of equity.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.options import BacktestOptions

Floats = NDArray[np.float64]


def equal_weight(direction: Floats, options: BacktestOptions) -> Floats:
    """Weight d / N: the same fraction for every name of the universe, held or not."""
    weights: Floats = direction / direction.shape[1]
    return weights


def fixed_pct(direction: Floats, options: BacktestOptions) -> Floats:
    """Weight d · fixed_pct."""
    return direction * options.fixed_pct


SIZING: dict[str, Callable[[Floats, BacktestOptions], Floats]] = {
    "equal_weight": equal_weight,
    "fixed_pct": fixed_pct,
}
