"""Does the whole path find a planted signal, and only that? Logistic regression stands in for the model."""

from __future__ import annotations

import numpy as np
import pytest

from finseek.backtest import BacktestOptions, Signal, exposure_matched_excess, run_backtest
from finseek.evaluate.learned import feature_matrix, learned
from finseek.market import generate_prices, snapshots
from finseek.stats import bootstrap_interval, mean_of, resample_counts, stationary_bootstrap
from finseek.theses.synthetic import generate_theses


def p_value(seed: int, alpha: float, costs: bool) -> float:
    """One-sided p-value of the mean return in excess of the exposure-matched universe, on 200 test sessions."""
    prices, planted = generate_prices(seed, n_tickers=20, n_sessions=500, alpha=alpha)
    theses = generate_theses(planted.signal, prices.sessions, prices.tickers, seed=seed).theses
    first, last = (prices.sessions.dates[i].item() for i in (290, 490))
    training = [t for t in theses if t.as_of_date < prices.sessions.dates[280].item()]
    test = [t for t in theses if first <= t.as_of_date < last]
    shown = snapshots(prices)
    train, new = (feature_matrix([(t.ticker, t.as_of_date) for t in part], shown) for part in (training, test))
    answers = learned("logistic", train, [t.action for t in training], new)
    signals = [Signal(t.ticker, t.as_of_date, action) for t, action in zip(test, answers, strict=True)]
    fees = {} if costs else {"transaction_cost": 0.0, "slippage": 0.0}
    excess = exposure_matched_excess(run_backtest(signals, prices, BacktestOptions(shorts=True, **fees)))
    counts = resample_counts(stationary_bootstrap(len(excess), 5, 1000, np.random.default_rng(seed)))
    sums = np.stack([excess, np.ones_like(excess)], axis=1)
    return bootstrap_interval(sums, mean_of, counts).p_value


def test_a_planted_signal_is_found_and_noise_is_not():
    assert sum(p_value(seed, 0.15, costs=False) < 0.05 for seed in range(4)) >= 3
    assert sum(p_value(seed, 0.0, costs=False) < 0.05 for seed in range(4)) <= 2


@pytest.mark.soak
@pytest.mark.parametrize("costs", [False, True])
def test_a_hundred_seeds(costs):
    null = [p_value(seed, 0.0, costs) for seed in range(100)]
    planted = [p_value(seed, 0.15, costs) for seed in range(100)]
    found = sum(p < 0.05 for p in null), sum(p < 0.05 for p in planted)
    print(f"costs {costs}: significant of 100 without alpha {found[0]}, with planted alpha {found[1]}")
    assert found[0] <= 10
    assert found[1] >= 90
