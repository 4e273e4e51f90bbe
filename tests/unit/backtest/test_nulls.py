"""Null books: what they keep, what they change, and the p-value."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from finseek.backtest import BacktestOptions, Signal, run_backtest
from finseek.backtest.nulls import null_sharpes, p_value, shifted, summary
from finseek.backtest.performance import returns_of, sharpe_ratio
from finseek.backtest.simulate import simulate
from finseek.core.actions import ACTIONS

WORDS = [str(action) for action in ACTIONS]


def test_a_shift_keeps_every_weight_and_every_step_but_the_seam():
    weights = np.random.default_rng(0).normal(size=(20, 4))
    moved = shifted(weights, 3, np.array([2, 0, 3, 1]))
    assert np.allclose(np.sort(moved, axis=None), np.sort(weights, axis=None))
    assert np.allclose(moved[3:], weights[:-3][:, [2, 0, 3, 1]])
    assert np.allclose(np.sort(np.abs(moved).sum(axis=1)), np.sort(np.abs(weights).sum(axis=1)))
    steps, again = (np.abs(np.diff(w, axis=0)).sum(axis=1) for w in (weights, moved))
    assert np.allclose(np.sort(steps)[:-1].sum(), np.sort(again).sum(), rtol=0.2)


def test_p_value_counts_ties_and_itself():
    nulls = np.array([0.0, 1.0, 2.0, np.nan])
    assert p_value(1.0, nulls) == (1 + 2) / (1 + 3)
    assert p_value(3.0, nulls) == 1 / 4
    assert p_value(None, nulls) is None
    assert p_value(1.0, np.array([np.nan])) is None


def test_null_sharpes_are_those_of_single_accounts(walk, everywhere):
    prices = walk(40, 3)
    result = run_backtest(everywhere(prices, WORDS), prices, BacktestOptions(nulls=0, shorts=True))
    found = null_sharpes(result.weights, result.tape, result.options, 7, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    shifts = rng.integers(0, len(result.weights), size=7)
    for value, shift in zip(found, shifts, strict=True):
        book = shifted(result.weights, int(shift), rng.permutation(3))
        equity = simulate(book, result.tape, result.options).equity
        assert value == pytest.approx(sharpe_ratio(returns_of(equity)), rel=1e-10)


def test_a_book_without_trades_has_no_null(walk, everywhere):
    prices = walk(20, 2)
    metrics = run_backtest(everywhere(prices, "HOLD"), prices, BacktestOptions(nulls=20)).metrics["nulls"]
    assert metrics["without_value"] == 20
    assert metrics["p_value"] is None


def test_the_seed_decides(walk, everywhere):
    prices = walk(30, 3)
    signals = everywhere(prices, WORDS)
    run = lambda seed: run_backtest(signals, prices, BacktestOptions(nulls=50, null_seed=seed)).metrics["nulls"]  # noqa: E731
    assert run(1) == run(1)
    assert run(1)["quantiles"] != run(2)["quantiles"]


def test_a_planted_signal_is_found(walk, signal):
    """A book that knows the next day beats all null books; its reverse beats none."""
    prices = walk(120, 5)
    better = np.diff(prices.open, axis=0)[1:] > 0
    knows = {
        way: [
            signal(t, k, "BUY" if better[k, c] == way else "HOLD")
            for c, t in enumerate(prices.tickers)
            for k in range(len(better))
        ]
        for way in (True, False)
    }
    p = {
        way: run_backtest(s, prices, BacktestOptions(nulls=200)).metrics["nulls"]["p_value"] for way, s in knows.items()
    }
    assert p[True] == 1 / 201
    assert p[False] > 0.99


def test_summary_of_no_books():
    assert summary(1.0, np.empty(0))["quantiles"] == {"0.05": None, "0.5": None, "0.95": None}


@pytest.mark.soak
@pytest.mark.parametrize("fee", [0.0, 0.002])
def test_p_values_of_noise_are_uniform(walk, everywhere, fee):
    """Opinions without skill that last some days, on 300 random walks: Kolmogorov-Smirnov."""
    found = []
    options = BacktestOptions(nulls=199, shorts=True, transaction_cost=fee, slippage=0.0)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        prices, days, names = walk(120, 6, seed=seed), 120, 6
        fresh = rng.random((days, names)) < 0.3
        drawn = rng.integers(0, 5, size=(days, names))
        held = np.maximum.accumulate(np.where(fresh, np.arange(days)[:, None], 0), axis=0)
        words = np.take_along_axis(drawn, held, axis=0)
        signals = [
            Signal(ticker, day.item(), ACTIONS[words[s, n]])
            for s, day in enumerate(prices.sessions.dates[:-1])
            for n, ticker in enumerate(prices.tickers)
        ]
        found.append(run_backtest(signals, prices, options).metrics["nulls"]["p_value"])
    chance = kstest(found, "uniform").pvalue
    print(f"fee {fee}: Kolmogorov-Smirnov p = {chance:.3f} over {len(found)} markets")
    assert chance > 0.01
