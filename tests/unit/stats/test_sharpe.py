"""The published anchors."""

from __future__ import annotations

import numpy as np
import pytest

from finseek import stats
from finseek.core.errors import InputError

ANNUAL_2_5 = 2.5 / np.sqrt(250)
HALF = 0.5 / 250


@pytest.mark.parametrize(("skewness", "kurtosis", "expected"), [(0, 3, 0.982), (-2.448, 10.164, 0.913)])
def test_psr_of_the_paper(skewness, kurtosis, expected):
    found = stats.probabilistic_sharpe_ratio(0.458, 24, 0, skewness, kurtosis)
    assert round(found, 3) == expected


def test_dsr_of_the_paper():
    assert round(stats.expected_maximum_sharpe(100, HALF), 4) == 0.1132
    assert round(stats.deflated_sharpe_ratio(ANNUAL_2_5, 1250, 100, HALF, -3, 10), 4) == 0.9004
    assert round(stats.deflated_sharpe_ratio(ANNUAL_2_5, 1250, 46, HALF, -3, 10), 4) == 0.9505
    assert round(stats.deflated_sharpe_ratio(ANNUAL_2_5, 1250, 88, HALF), 4) == 0.9505


@pytest.mark.parametrize(("periods", "years"), [(252, 2.73), (52, 2.83), (12, 3.24)])
def test_minimum_track_record_length_of_the_paper(periods, years):
    found = stats.minimum_track_record_length(2 / np.sqrt(periods), 1 / np.sqrt(periods), 0.95)
    assert round(found / periods, 2) == years


def test_the_track_record_is_just_long_enough():
    length = stats.minimum_track_record_length(0.1, 0.02, 0.95, -0.5, 6)
    assert stats.probabilistic_sharpe_ratio(0.1, length, 0.02, -0.5, 6) == pytest.approx(0.95)
    assert stats.minimum_track_record_length(0.1, 0.1) is None


def test_forty_five_trials_need_five_years():
    assert stats.minimum_backtest_length(45) == pytest.approx(5, abs=0.005)
    assert stats.minimum_backtest_length(46) > stats.minimum_backtest_length(45)
    assert stats.minimum_backtest_length(45) < 2 * np.log(45)


def test_one_trial_is_no_deflation():
    assert stats.deflated_sharpe_ratio(0.1, 100, 1, 5.0) == stats.probabilistic_sharpe_ratio(0.1, 100)


def test_the_expected_maximum_is_that_of_simulated_trials():
    rng = np.random.default_rng(0)
    for trials in (10, 50, 200):
        simulated = rng.normal(0, 0.3, (20000, trials)).max(axis=1).mean()
        assert stats.expected_maximum_sharpe(trials, 0.09) == pytest.approx(simulated, rel=0.025)


def test_copies_of_one_trial_get_the_floor_of_the_variance():
    assert stats.trial_variance([0.2, 0.2, 0.2, None], 101) == pytest.approx(0.01)
    assert stats.trial_variance([0.2], 101) == pytest.approx(0.01)
    assert stats.trial_variance([0.5, -0.5], 101) == pytest.approx(0.5)


def test_moments_equal_those_of_scipy():
    from scipy.stats import kurtosis, skew

    r = np.random.default_rng(3).standard_t(5, 200)
    found = stats.moments(r)
    assert (found.skewness, found.kurtosis) == pytest.approx((skew(r), kurtosis(r, fisher=False)))
    assert found.sharpe == pytest.approx(r.mean() / r.std(ddof=1))


def test_dsr_of_the_best_of_fifty_null_trials_rejects_at_most_five_in_a_hundred():
    """2,000 searches of 50 trials of 250 days without skill."""
    rng = np.random.default_rng(1)
    rejected = 0
    for _ in range(2000):
        r = rng.normal(0, 0.01, (250, 50))
        sharpes = r.mean(0) / r.std(0, ddof=1)
        best = stats.moments(r[:, sharpes.argmax()])
        variance = stats.trial_variance(list(sharpes), 250)
        found = stats.deflated_sharpe_ratio(best.sharpe, 250, 50, variance, best.skewness, best.kurtosis)
        rejected += found > 0.95
    assert rejected / 2000 <= 0.05


@pytest.mark.parametrize(
    "call",
    [
        lambda: stats.moments([0.1]),
        lambda: stats.moments([0.1, 0.1, 0.1]),
        lambda: stats.moments([0.1, float("nan")]),
        lambda: stats.probabilistic_sharpe_ratio(0.1, 1),
        lambda: stats.probabilistic_sharpe_ratio(2.0, 10, 0, 3.0, 1.0),
        lambda: stats.expected_maximum_sharpe(0, 1),
        lambda: stats.minimum_track_record_length(0.1, level=1),
        lambda: stats.minimum_backtest_length(5, 0),
    ],
)
def test_senseless_arguments_are_refused(call):
    with pytest.raises(InputError):
        call()
