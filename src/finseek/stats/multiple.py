"""Many tests at once: adjusted p-values, and tests of the best of many strategies."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finseek.core.errors import InputError, MissingPart

Floats = NDArray[np.float64]


def holm(p_values: ArrayLike) -> Floats:
    """Adjusted p-values of Holm (1979): controls the chance of any false discovery, under any dependence."""
    p, order = _sorted(p_values)
    m = len(p)
    stepped = np.maximum.accumulate((m - np.arange(m)) * p)
    return _restored(np.minimum(stepped, 1), order)


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Adjusted p-values of Benjamini & Hochberg (1995): controls the share of false discoveries."""
    p, order = _sorted(p_values)
    m = len(p)
    stepped = np.minimum.accumulate((m / np.arange(m, 0, -1)) * p[::-1])[::-1]
    return _restored(np.minimum(stepped, 1), order)


def superior_predictive_ability(
    benchmark: ArrayLike,
    trials: ArrayLike,
    mean_block: float = 5.0,
    n_resamples: int = 1000,
    seed: int = 0,
    kind: Literal["lower", "consistent", "upper"] = "consistent",
) -> float:
    """P-value that no trial has a higher expected return than the benchmark (Hansen 2005), through arch.

    ``upper`` is White's reality check (2000) on studentised differences, ``consistent`` Hansen's SPA.

    Args:
        benchmark: (T,) returns.
        trials: (T, N) returns.
        mean_block: of the stationary bootstrap, in periods.
        n_resamples: resamples.
        seed: of the bootstrap.
        kind: which of the three p-values.

    Raises:
        MissingPart: arch is not installed.
        InputError: shapes that do not fit.
    """
    try:
        from arch.bootstrap import SPA
    except ImportError:
        raise MissingPart("arch", "stats", "the test for superior predictive ability") from None
    base, many = np.asarray(benchmark, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    if many.ndim != 2 or base.shape != many.shape[:1]:
        raise InputError(f"returns of shape {base.shape} and {many.shape} must be (T,) and (T, N)")
    test = SPA(-base, -many, block_size=mean_block, reps=n_resamples, bootstrap="stationary", seed=seed)
    test.compute()
    return float(test.pvalues[kind])


def _sorted(p_values: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise InputError("p-values must be one series of numbers from 0 to 1")
    order = np.argsort(p, kind="stable")
    return p[order], order


def _restored(values: Floats, order: NDArray[np.int64]) -> Floats:
    result = np.empty_like(values)
    result[order] = values
    return result
