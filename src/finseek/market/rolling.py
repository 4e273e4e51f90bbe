"""Rolling sums, means, deviations and extremes down the rows of (S, N) arrays.

Legend: n window in rows, k a power of two. A window of n is put together from windows of 1, 2, 4 … rows, each made of
two of half its length, so a window costs about log2(n) passes instead of n, and sums are pairwise: no running total
that carries rounding (or a NaN) from the start of the table into every later row. NaN in the first n - 1 rows.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def shifted(x: Floats, n: int) -> Floats:
    """x_{t-n}; NaN in the first n rows."""
    result = np.full_like(x, np.nan)
    if n < len(x):
        result[n:] = x[: len(x) - n]
    return result


def _powers(n: int) -> list[int]:
    """The powers of two that add up to n, smallest first."""
    return [1 << bit for bit in range(n.bit_length()) if n >> bit & 1]


def _assemble(x: Floats, n: int, join: Callable[[Floats, Floats, int], Floats]) -> Floats:
    """Windows of n from windows of powers of two.

    ``join(late, early, rows)`` makes the window of ``late`` and of ``early``, which ends ``rows`` rows before it.
    Arrays hold complete windows only: entry i of a window of k ends at row i + k - 1.
    """
    result = np.full_like(x, np.nan)
    if n > len(x):
        return result
    block, length = x, 1
    whole, covered = x, 0
    for part in _powers(n):
        while length < part:
            block = join(block[length:], block[:-length], length)
            length *= 2
        whole = join(whole[length:], block[: len(whole) - length], covered) if covered else block
        covered += part
    result[n - 1 :] = whole
    return result


def rolling_sum(x: Floats, n: int, decay: float = 1.0) -> Floats:
    """Sum over j < n of decay^j x_{t-j}."""
    if decay == 1.0:
        return _assemble(x, n, lambda late, early, rows: late + early)
    return _assemble(x, n, lambda late, early, rows: late + decay**rows * early)


def rolling_mean(x: Floats, n: int) -> Floats:
    """Mean of the n last values."""
    return rolling_sum(x, n) / n


def rolling_max(x: Floats, n: int) -> Floats:
    """Largest of the n last values."""
    return _assemble(x, n, lambda late, early, rows: np.maximum(late, early))


def rolling_min(x: Floats, n: int) -> Floats:
    """Smallest of the n last values."""
    return _assemble(x, n, lambda late, early, rows: np.minimum(late, early))


def rolling_std(x: Floats, n: int) -> Floats:
    """Standard deviation (ddof = 1) of the n last values; exactly 0 where they are equal.

    Chan, Golub and LeVeque 1983: mean and squared deviations of two blocks of a and b rows join as
    M = M_a + M_b + (mean_a - mean_b)^2 ab / (a + b), which subtracts no large numbers.
    """
    result = np.full_like(x, np.nan)
    if n > len(x):
        return result
    mean, spread, length = x, np.zeros_like(x), 1
    whole_mean, whole_spread, covered = mean, spread, 0
    for part in _powers(n):
        while length < part:
            mean, spread = _merge(mean[length:], spread[length:], mean[:-length], spread[:-length], length, length)
            length *= 2
        if covered:
            rows = len(whole_mean) - length
            late = whole_mean[length:], whole_spread[length:]
            whole_mean, whole_spread = _merge(*late, mean[:rows], spread[:rows], covered, length)
        else:
            whole_mean, whole_spread = mean, spread
        covered += part
    result[n - 1 :] = np.sqrt(whole_spread) / sqrt(n - 1)
    return result


def _merge(mean_a: Floats, m_a: Floats, mean_b: Floats, m_b: Floats, a: int, b: int) -> tuple[Floats, Floats]:
    gap = mean_b - mean_a
    return mean_a + gap * (b / (a + b)), m_a + m_b + gap * gap * (a * b / (a + b))
