from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from finseek import stats
from finseek.core.errors import InputError


def test_spearman_and_pearson_agree_with_scipy_session_by_session():
    rng = np.random.default_rng(0)
    score = rng.integers(-2, 3, (40, 15)).astype(float)
    outcome = score * 0.2 + rng.normal(size=(40, 15))
    score[rng.random((40, 15)) < 0.2] = np.nan
    outcome[rng.random((40, 15)) < 0.1] = np.nan
    for ranks, theirs in ((True, scipy_stats.spearmanr), (False, scipy_stats.pearsonr)):
        found = stats.correlation_by_session(score, outcome, ranks=ranks)
        for s in range(40):
            both = np.isfinite(score[s]) & np.isfinite(outcome[s])
            assert found[s] == pytest.approx(theirs(score[s, both], outcome[s, both])[0], abs=1e-12)


def test_constant_and_nearly_empty_sessions_have_no_correlation():
    score = np.array([[1.0, 1.0, 1.0], [1.0, np.nan, np.nan], [1.0, 2.0, 3.0]])
    outcome = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    assert np.isnan(stats.correlation_by_session(score, outcome)).all()
    with pytest.raises(InputError, match="shape"):
        stats.correlation_by_session(score, outcome[:2])


def slow_newey_west(x: np.ndarray, lag: int) -> float:
    n, d = len(x), x - x.mean()
    total = 0.0
    for i in range(n):
        for j in range(n):
            if abs(i - j) <= lag:
                total += (1 - abs(i - j) / (lag + 1)) * d[i] * d[j]
    return float(np.sqrt(total) / n)


@pytest.mark.parametrize("lag", [0, 1, 4, 200])
def test_newey_west_equals_the_double_sum(lag):
    rng = np.random.default_rng(1)
    x = np.convolve(rng.normal(size=70), np.ones(5) / 5, "valid") + 0.1
    found = stats.newey_west(np.append(x, np.nan), lag)
    assert found.n == 66
    assert found.mean == pytest.approx(x.mean())
    if lag < 66:
        assert found.standard_error == pytest.approx(slow_newey_west(x, lag))
        assert found.t == pytest.approx(found.mean / found.standard_error)


def test_newey_west_agrees_with_plain_errors_at_lag_zero():
    x = np.random.default_rng(2).normal(1, 2, 400)
    found = stats.newey_west(x, 0)
    assert found.standard_error == pytest.approx(x.std() / 20)
    assert found.p_value == pytest.approx(2 * scipy_stats.norm.sf(found.t))


@pytest.mark.parametrize(("series", "n"), [([], 0), ([np.nan], 0), ([3.0], 1), ([2.0, 2.0], 2)])
def test_absence_is_none(series, n):
    found = stats.newey_west(series, 1)
    assert (found.n, found.standard_error, found.p_value) == (n, None, None)
    with pytest.raises(InputError):
        stats.newey_west([1.0, 2.0], -1)
