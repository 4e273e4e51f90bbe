from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from finseek.evaluate.information import information_metrics, lag_of


def rows(seed=0, n=400, sessions=25):
    rng = np.random.default_rng(seed)
    session = rng.integers(0, sessions, n)
    rank = rng.integers(-2, 3, n).astype(float)
    returns = 0.01 * rank * rng.random(n) + rng.normal(0, 0.02, n)
    rank[rng.random(n) < 0.1] = np.nan
    returns[rng.random(n) < 0.1] = np.nan
    return rank, returns, session


def test_information_coefficients_and_spread_equal_the_slow_way():
    rank, returns, session = rows()
    found = information_metrics(rank, 2 * rank, returns, session, 1)
    ic, rank_ic, spread = [], [], []
    for s in range(25):
        here = (session == s) & np.isfinite(rank) & np.isfinite(returns)
        ic.append(pearsonr(rank[here], returns[here])[0])
        rank_ic.append(spearmanr(rank[here], returns[here])[0])
        spread.append(returns[here & (rank > 0)].mean() - returns[here & (rank < 0)].mean())
    assert found["ic"]["mean"] == pytest.approx(np.mean(ic))
    assert found["rank_ic"]["mean"] == pytest.approx(np.mean(rank_ic))
    assert found["expected_rank_ic"]["mean"] == pytest.approx(np.mean(rank_ic))
    assert found["long_short_spread"]["mean"] == pytest.approx(np.mean(spread))
    assert found["rank_ic"]["n"] == 25


def test_the_lag_covers_the_overlap():
    assert lag_of(30, 77) == 29
    assert lag_of(1, 100) == 4


def test_constant_sessions_and_empty_input_have_none():
    found = information_metrics(np.ones(6), None, np.arange(6.0), np.zeros(6, dtype=int), 1)
    assert found["rank_ic"]["mean"] is None
    assert found["rank_ic"]["n"] == 0
    assert found["long_short_spread"]["mean"] is None
