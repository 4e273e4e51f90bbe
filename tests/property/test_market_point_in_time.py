"""Nothing as of t knows of t+1, and neither a split nor a dividend changes what is shown or earned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finseek.market import (
    LabelOptions,
    Prices,
    PricesOptions,
    SnapshotOptions,
    anonymise_prices,
    forward_returns,
    generate_prices,
    load_prices,
    realised_labels,
    snapshots,
)
from finseek.market.features import FEATURES

COLUMNS = ("open", "high", "low", "close", "volume", "adjusted_close")
OPTIONS = SnapshotOptions(context=("universe", "benchmark"))
SYNTHETIC = generate_prices(11, n_tickers=4, n_sessions=320)[0]
PLAY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rewritten(prices: Prices, t: int, seed: int) -> Prices:
    """Another future: every bar from t+1 on has other prices and volumes, and some are gone."""
    rng = np.random.default_rng(seed)

    def change(table: Prices) -> Prices:
        after = slice(t + 1, None)
        arrays = {name: getattr(table, name).copy() for name in COLUMNS}
        gone = rng.random(table.close[after].shape) < 0.1
        for array in arrays.values():
            array[after] = np.where(gone, np.nan, array[after] * np.exp(rng.normal(0, 0.5, array[after].shape)))
        return replace(table, benchmark=None, **arrays)

    return replace(change(prices), benchmark=change(prices.benchmark))


def assert_blind(prices: Prices, t: int, seed: int) -> None:
    """Snapshots, prompt texts and labels known as of t are bit by bit the same in another future."""
    other = rewritten(prices, t, seed)
    before, after = snapshots(prices, OPTIONS), snapshots(other, OPTIONS)
    for kind in ("features", "scaled"):
        for name, array in getattr(before, kind).items():
            np.testing.assert_array_equal(getattr(after, kind)[name][: t + 1], array[: t + 1], err_msg=name)
    day = prices.sessions.dates[t].item()
    for ticker in prices.tickers:
        assert after.text(ticker, day) == before.text(ticker, day)
    for horizon in (1, 5):
        known = max(t - horizon, 0)  # label_end = s + 1 + H <= t
        for entry in ("next_open", "next_close"):
            ours = forward_returns(prices, [horizon], entry=entry)[horizon][:known]
            theirs = forward_returns(other, [horizon], entry=entry)[horizon][:known]
            np.testing.assert_array_equal(theirs, ours)
        labels = LabelOptions(horizon=horizon)
        np.testing.assert_array_equal(
            realised_labels(other, labels).rank[:known], realised_labels(prices, labels).rank[:known]
        )


@PLAY
@given(t=st.integers(1, 318), seed=st.integers(0, 2**32 - 1))
def test_nothing_as_of_t_depends_on_what_comes_after(t, seed):
    assert_blind(SYNTHETIC, t, seed)


@pytest.mark.realdata
@settings(parent=PLAY, max_examples=10)
@given(t=st.integers(1, 494), seed=st.integers(0, 2**32 - 1))
def test_nothing_as_of_t_depends_on_what_comes_after_in_the_real_prices(real_prices, t, seed):
    assert_blind(load_prices(real_prices, PricesOptions(benchmark="SPY"), ["AMZN", "T", "TSLA"]), t, seed)


@pytest.mark.parametrize("name", ["ret5", "sma20", "rsi14", "pos252", "money20"])
def test_a_feature_that_looks_one_session_ahead_is_caught(monkeypatch, name):
    right = FEATURES[name]
    monkeypatch.setitem(FEATURES, name, replace(right, formula=lambda bars: np.roll(right.formula(bars), -1, axis=0)))
    with pytest.raises(AssertionError, match=name):
        assert_blind(SYNTHETIC, 280, 1)


def split(prices: Prices, k: int, ratio: float) -> Prices:
    """The same market with a split before the open of session k: raw prices / ratio, shares x ratio from there on."""
    later = (np.arange(len(prices.sessions)) >= k)[:, None]
    raw = {name: np.where(later, getattr(prices, name) / ratio, getattr(prices, name)) for name in COLUMNS[:4]}
    volume = np.where(later, prices.volume * ratio, prices.volume)
    return replace(prices, volume=volume, adjusted_close=prices.adjusted_close / ratio, **raw)


def dividend(prices: Prices, k: int, paid: float) -> Prices:
    """The same total return with a dividend paid at the open of session k, as its later fetch shows the days before."""
    earlier = (np.arange(len(prices.sessions)) < k)[:, None]
    return replace(prices, adjusted_close=np.where(earlier, prices.adjusted_close * (1 - paid), prices.adjusted_close))


def assert_same(prices: Prices, other: Prices, upto: int | None = None) -> None:
    ours, theirs = snapshots(prices), snapshots(other)
    for name, array in ours.features.items():
        np.testing.assert_allclose(theirs.features[name][:upto], array[:upto], rtol=1e-9, atol=1e-11, err_msg=name)
    for day in prices.sessions.dates[:upto].tolist():
        for ticker in prices.tickers:
            assert theirs.text(ticker, day) == ours.text(ticker, day)


@settings(parent=PLAY, max_examples=8)
@given(k=st.integers(1, 319), ratio=st.sampled_from([10.0, 2.0, 1.5, 0.1, 7.0]))
def test_a_split_changes_no_return_and_no_snapshot(k, ratio):
    other = split(SYNTHETIC, k, ratio)
    assert_same(SYNTHETIC, other)
    for horizon, value in forward_returns(SYNTHETIC).items():
        np.testing.assert_allclose(forward_returns(other)[horizon], value, atol=1e-12)


@settings(parent=PLAY, max_examples=8)
@given(k=st.integers(2, 319), paid=st.floats(0.001, 0.2))
def test_a_later_dividend_changes_no_return_and_no_snapshot_before_it(k, paid):
    other = dividend(SYNTHETIC, k, paid)
    assert_same(SYNTHETIC, other, upto=k)
    for horizon, value in forward_returns(SYNTHETIC).items():
        known = max(k - 1 - horizon, 0)
        np.testing.assert_allclose(forward_returns(other)[horizon][:known], value[:known], atol=1e-12)


def ex_dividend(prices: Prices, k: int, paid: float) -> Prices:
    """The same total return, a share of it paid out before the open of session k: raw prices fall by it and stay lower.

    The money that is traded stays; the adjusted series keeps its shape, in another unit.
    """
    later = (np.arange(len(prices.sessions)) >= k)[:, None]
    raw = {name: getattr(prices, name) * np.where(later, 1 - paid, 1.0) for name in COLUMNS[:4]}
    volume = prices.volume / np.where(later, 1 - paid, 1.0)
    return replace(prices, volume=volume, adjusted_close=prices.adjusted_close * (1 - paid), **raw)


@settings(parent=PLAY, max_examples=8)
@given(k=st.integers(1, 319), paid=st.floats(0.001, 0.2))
def test_a_dividend_changes_no_return_and_no_snapshot(k, paid):
    other = ex_dividend(SYNTHETIC, k, paid)
    assert_same(SYNTHETIC, other)
    for horizon, value in forward_returns(SYNTHETIC).items():
        np.testing.assert_allclose(forward_returns(other)[horizon], value, atol=1e-12)


@pytest.mark.parametrize(
    "other", [split(SYNTHETIC, 150, 10.0), ex_dividend(SYNTHETIC, 150, 0.04)], ids=["split", "dividend"]
)
@pytest.mark.parametrize("sizing", ["equal_weight", "volatility_target"])
def test_neither_split_nor_dividend_changes_a_backtest(other, sizing):
    from finseek.backtest import BacktestOptions, Signal, run_backtest
    from finseek.core.actions import ACTIONS

    rng = np.random.default_rng(0)
    days = SYNTHETIC.sessions.dates[100:200].tolist()
    signals = [Signal(t, d, ACTIONS[rng.integers(5)], None) for t in SYNTHETIC.tickers for d in days]
    options = BacktestOptions.model_validate(
        {"shorts": True, "sizing_strategy": sizing, "costs": {"impact": 0.1}, "limits": {"max_participation": 0.05}}
    )
    ours, theirs = (run_backtest(signals, prices, options) for prices in (SYNTHETIC, other))
    assert len(ours.equity) == 101
    np.testing.assert_allclose(theirs.account.equity, ours.account.equity, rtol=1e-11)
    np.testing.assert_allclose(theirs.account.traded, ours.account.traded, atol=1e-6)
    unadjusted = replace(other, adjusted_close=other.close)
    assert not np.allclose(run_backtest(signals, unadjusted, options).account.equity, ours.account.equity, rtol=1e-6)


def test_a_change_of_money_volume_is_noticed():
    with pytest.raises(AssertionError, match="money20"):
        assert_same(SYNTHETIC, replace(split(SYNTHETIC, 150, 10.0), volume=SYNTHETIC.volume))


def test_an_anonymous_market_shows_the_same():
    hidden = anonymise_prices(SYNTHETIC, seed=3)
    assert set(hidden.tickers).isdisjoint(SYNTHETIC.tickers)
    from finseek.market import Anonymiser

    codes = Anonymiser(SYNTHETIC.sessions, 3)
    ours, theirs = snapshots(SYNTHETIC, OPTIONS), snapshots(hidden, OPTIONS)
    for ticker in SYNTHETIC.tickers:
        for k in (0, 25, 100, 319):
            day = SYNTHETIC.sessions.dates[k].item()
            assert codes.day(day) == k
            assert theirs.text(codes.ticker(ticker), hidden.sessions.dates[k].item()) == ours.text(ticker, day)
    np.testing.assert_allclose(hidden.adjusted_close[0], 100)
    assert anonymise_prices(SYNTHETIC, seed=4).tickers != hidden.tickers
