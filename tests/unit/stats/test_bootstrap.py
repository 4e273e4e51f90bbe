from __future__ import annotations

import numpy as np
import pytest
from arch.bootstrap import optimal_block_length

from finseek import stats
from finseek.core.errors import InputError


def slow_stationary(n: int, mean_block: float, rng: np.random.Generator) -> list[int]:
    """The paper's algorithm, step by step, on the same random numbers as one fast resample."""
    ends = rng.random((1, n))[0]
    starts = rng.integers(0, n, size=(1, n))[0]
    series = [int(starts[0])]
    for step in range(1, n):
        series.append(int(starts[step]) if ends[step] < 1 / mean_block else (series[-1] + 1) % n)
    return series


@pytest.mark.parametrize("mean_block", [1, 2.5, 20, 1000])
def test_indices_equal_the_step_by_step_algorithm(mean_block):
    fast = stats.stationary_bootstrap(57, mean_block, 1, np.random.default_rng(3))
    assert fast.shape == (1, 57)
    assert fast[0].tolist() == slow_stationary(57, mean_block, np.random.default_rng(3))


def test_blocks_have_the_mean_length():
    indices = stats.stationary_bootstrap(400, 8, 500, np.random.default_rng(0))
    breaks = (np.diff(indices, axis=1) % 400 != 1).mean()
    assert breaks == pytest.approx(1 / 8, abs=0.005)
    assert np.bincount(indices.ravel()).std() / np.bincount(indices.ravel()).mean() < 0.15


@pytest.mark.parametrize(("n", "block", "resamples"), [(0, 5, 10), (10, 0.5, 10), (10, float("nan"), 10), (10, 5, 0)])
def test_senseless_arguments_are_refused(n, block, resamples):
    with pytest.raises(InputError):
        stats.stationary_bootstrap(n, block, resamples, np.random.default_rng(0))


def test_counts_times_sums_equal_the_resampled_rows():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(30, 3))
    indices = stats.stationary_bootstrap(30, 4, 20, rng)
    totals = stats.resample_counts(indices) @ values
    np.testing.assert_allclose(totals, [values[row].sum(axis=0) for row in indices], rtol=1e-12)


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.7, -0.4])
@pytest.mark.parametrize("n", [60, 500, 2000])
def test_block_length_agrees_with_arch(phi, n):
    rng = np.random.default_rng(n)
    noise = rng.normal(size=n)
    series = np.zeros(n)
    for t in range(1, n):
        series[t] = phi * series[t - 1] + noise[t]
    theirs = float(optimal_block_length(series)["stationary"].iloc[0])
    assert stats.optimal_block(series) == pytest.approx(max(theirs, 1), rel=1e-9)


def test_interval_of_a_sharpe_ratio_equals_the_slow_way():
    rng = np.random.default_rng(5)
    returns = rng.normal(0.001, 0.01, 120)
    indices = stats.stationary_bootstrap(120, 5, 400, rng)
    sums = np.stack([np.ones(120), returns, returns**2], axis=1)
    ours = stats.bootstrap_interval(sums, stats.sharpe_of, stats.resample_counts(indices))
    draws = [returns[row].mean() / returns[row].std(ddof=1) for row in indices]
    assert ours.estimate == pytest.approx(returns.mean() / returns.std(ddof=1), rel=1e-10)
    assert [ours.low, ours.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), rel=1e-9)
    assert ours.undefined == 0


def test_sharpe_of_a_constant_series_is_undefined():
    sums = np.stack([np.ones(9), np.full(9, 0.01), np.full(9, 0.0001)], axis=1)
    found = stats.bootstrap_interval(sums, stats.sharpe_of, np.ones((4, 9)))
    assert (found.estimate, found.low, found.undefined) == (None, None, 4)


def test_a_paired_difference_uses_the_same_sessions_on_both_sides():
    rng = np.random.default_rng(2)
    base = np.stack([rng.normal(size=80), np.ones(80)], axis=1)
    better = base + np.array([0.25, 0])
    counts = stats.resample_counts(stats.stationary_bootstrap(80, 5, 500, rng))
    found = stats.paired_difference(better, base, stats.mean_of, counts)
    assert [found.low, found.high] == pytest.approx([0.25, 0.25], rel=1e-9)
    assert found.above_zero
    assert not stats.paired_difference(base, base, stats.mean_of, counts).above_zero
    with pytest.raises(InputError, match="same sessions"):
        stats.paired_difference(better, base[1:], stats.mean_of, counts)


def test_p_value_is_small_for_a_clear_difference_and_one_for_its_opposite():
    rng = np.random.default_rng(4)
    draws = rng.normal(3, 1, 999)
    assert stats.interval(3.0, draws).p_value == pytest.approx(0.001, abs=0.003)
    assert stats.interval(-3.0, draws - 6).p_value > 0.99


def test_a_level_outside_zero_and_one_is_refused():
    with pytest.raises(InputError, match="level"):
        stats.interval(0.0, np.zeros(3), level=95)
