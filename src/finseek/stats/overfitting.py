"""Probability of backtest overfitting by combinatorially symmetric cross-validation.

    T periods   N trials   S blocks   C = S! / (S/2)!² ways to choose half of the blocks

Source: Bailey, Borwein, López de Prado & Zhu, "The Probability of Backtest Overfitting" (2017), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finseek.core.errors import InputError
from finseek.stats.bootstrap import Floats, Statistic, sharpe_of

CHUNK_NUMBERS = 1 << 20


@dataclass(frozen=True)
class Overfitting:
    """What the choice of the best trial is worth out of sample, over all C ways to halve the sample.

    Attributes:
        pbo: share of the halvings in which the trial that is best in sample is at or below the median outside.
        logits: (C,) ln(w / (1 - w)), w = rank outside / (N + 1) of the trial that is best in sample.
        in_sample: (C,) statistic of that trial in sample.
        out_of_sample: (C,) its statistic outside.
    """

    pbo: float
    logits: Floats
    in_sample: Floats
    out_of_sample: Floats

    @property
    def probability_of_loss(self) -> float:
        """Share of the halvings in which the chosen trial is below zero outside."""
        return float((self.out_of_sample < 0).mean())

    @property
    def slope(self) -> float | None:
        """Slope of the statistic outside on the one in sample: below zero, choosing harder does worse."""
        spread = self.in_sample - self.in_sample.mean()
        if not (spread**2).sum() > 0:
            return None
        return float((spread * self.out_of_sample).sum() / (spread**2).sum())


def pbo(returns: ArrayLike, blocks: int = 16, statistic: Statistic = sharpe_of) -> Overfitting:
    """Probability of backtest overfitting of a choice among trials.

    Args:
        returns: (T, N), a column a trial, rows in time; T at least twice the blocks, N at least 2.
        blocks: S, even; the blocks of rows are as equal in length as T allows.
        statistic: of totals (..., 3) of (count, sum, sum of squares); where it is undefined it counts as 0, what a
            trial that never trades earns. Of equal trials the first is chosen, and ranks below its equals.

    Raises:
        InputError: too few rows or trials, an odd number of blocks, or a value that is no number.
    """
    r = np.asarray(returns, dtype=np.float64)
    if blocks < 2 or blocks % 2 or blocks > 24:
        raise InputError(f"blocks {blocks} must be an even number from 2 to 24, like 16")
    if r.ndim != 2 or r.shape[1] < 2 or len(r) < 2 * blocks:
        raise InputError(f"returns of shape {r.shape} must be (T, N) with N at least 2 and T at least {2 * blocks}")
    if not np.isfinite(r).all():
        raise InputError("the trials' returns hold values that are no numbers: fill or drop those periods")
    T, N = r.shape
    starts = np.linspace(0, T, blocks + 1).astype(int)[:-1]
    per_block = np.add.reduceat(np.stack([np.ones_like(r), r, r * r], axis=2), starts, axis=0)
    half = _halves(blocks)
    # the complement of the i-th half in lexical order is the i-th from the end
    value = np.empty((len(half), N))
    step = max(1, CHUNK_NUMBERS // (3 * N))
    for start in range(0, len(half), step):
        chosen = half[start : start + step].astype(np.float64)
        totals = (chosen @ per_block.reshape(blocks, -1)).reshape(-1, N, 3)
        value[start : start + step] = np.nan_to_num(statistic(totals), nan=0.0)
    outside = value[::-1]
    best = value.argmax(axis=1)[:, None]
    earned = np.take_along_axis(outside, best, axis=1)
    rank = 1 + (outside < earned).sum(axis=1)
    w = rank / (N + 1)
    logits = np.log(w / (1 - w))
    inside = np.take_along_axis(value, best, axis=1)
    return Overfitting(float((logits <= 0).mean()), logits, inside[:, 0], earned[:, 0])


def _halves(blocks: int) -> NDArray[np.bool_]:
    """(C, S) all ways to choose half of the blocks, in lexical order."""
    chosen = np.array(list(combinations(range(blocks), blocks // 2)))
    half = np.zeros((len(chosen), blocks), dtype=bool)
    np.put_along_axis(half, chosen, True, axis=1)
    return half
