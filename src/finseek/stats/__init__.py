"""Honest statistics of scores and strategies: numpy only, no dates."""

from finseek.stats.bootstrap import (
    Interval,
    Statistic,
    block_within,
    bootstrap_interval,
    interval,
    mean_of,
    optimal_block,
    paired_difference,
    resample_counts,
    sharpe_of,
    stationary_bootstrap,
)
from finseek.stats.correlation import MeanEstimate, correlation_by_session, mean_ranks, newey_west
from finseek.stats.multiple import benjamini_hochberg, holm, superior_predictive_ability
from finseek.stats.overfitting import Overfitting, pbo
from finseek.stats.sharpe import (
    Moments,
    deflated_sharpe_ratio,
    expected_maximum_sharpe,
    minimum_backtest_length,
    minimum_track_record_length,
    moments,
    probabilistic_sharpe_ratio,
    sharpe_standard_error,
    trial_variance,
)

__all__ = [
    "Interval",
    "MeanEstimate",
    "Moments",
    "Overfitting",
    "Statistic",
    "benjamini_hochberg",
    "block_within",
    "bootstrap_interval",
    "correlation_by_session",
    "deflated_sharpe_ratio",
    "expected_maximum_sharpe",
    "holm",
    "interval",
    "mean_of",
    "mean_ranks",
    "minimum_backtest_length",
    "minimum_track_record_length",
    "moments",
    "newey_west",
    "optimal_block",
    "paired_difference",
    "pbo",
    "probabilistic_sharpe_ratio",
    "resample_counts",
    "sharpe_of",
    "sharpe_standard_error",
    "stationary_bootstrap",
    "superior_predictive_ability",
    "trial_variance",
]
