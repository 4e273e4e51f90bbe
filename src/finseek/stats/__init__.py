"""Honest statistics of scores and strategies: numpy only, no dates."""

from finseek.stats.bootstrap import (
    Interval,
    bootstrap_interval,
    interval,
    mean_of,
    optimal_block,
    paired_difference,
    resample_counts,
    sharpe_of,
    stationary_bootstrap,
)

__all__ = [
    "Interval",
    "bootstrap_interval",
    "interval",
    "mean_of",
    "optimal_block",
    "paired_difference",
    "resample_counts",
    "sharpe_of",
    "stationary_bootstrap",
]
