from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, kstest

from finseek import stats
from finseek.core.errors import InputError

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(P_VALUES)
def test_benjamini_hochberg_agrees_with_scipy(p):
    np.testing.assert_allclose(stats.benjamini_hochberg(p), false_discovery_control(p, method="bh"), atol=1e-12)


def slow_holm(p: list[float]) -> list[float]:
    order = sorted(range(len(p)), key=p.__getitem__)
    adjusted, worst = [0.0] * len(p), 0.0
    for step, i in enumerate(order):
        worst = max(worst, (len(p) - step) * p[i])
        adjusted[i] = min(1.0, worst)
    return adjusted


@given(P_VALUES)
def test_holm_equals_the_textbook(p):
    np.testing.assert_allclose(stats.holm(p), slow_holm(p), atol=1e-12)


@pytest.mark.parametrize("p", [[1.2], [-0.1], [float("nan")], [[0.1]]])
def test_what_is_no_p_value_is_refused(p):
    with pytest.raises(InputError, match="p-values"):
        stats.holm(p)


def test_spa_finds_skill_and_does_not_find_noise():
    rng = np.random.default_rng(0)
    trials = rng.normal(0, 0.01, (250, 10))
    assert stats.superior_predictive_ability(np.zeros(250), trials, n_resamples=300) > 0.05
    trials[:, 3] += 0.004
    assert stats.superior_predictive_ability(np.zeros(250), trials, n_resamples=300) < 0.01
    with pytest.raises(InputError, match="shape"):
        stats.superior_predictive_ability(np.zeros(3), trials)


@pytest.mark.soak
def test_spa_p_values_of_noise_are_uniform():
    """The reality check of one strategy without skill, 300 times: Kolmogorov-Smirnov."""
    rng = np.random.default_rng(1)
    p = [
        stats.superior_predictive_ability(
            np.zeros(200), rng.normal(0, 0.01, (200, 1)), 1.0, 300, seed=int(rng.integers(1 << 30)), kind="upper"
        )
        for _ in range(300)
    ]
    assert kstest(p, "uniform").pvalue > 0.01
