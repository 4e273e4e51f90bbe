"""Forward returns, delisting, realised labels, and the synthetic market that plants them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from finseek.core.actions import ACTIONS, Action
from finseek.core.errors import InputError
from finseek.market import (
    LabelOptions,
    Prices,
    SyntheticMarketOptions,
    count_returns,
    describe_prices,
    forward_returns,
    generate_prices,
    label_end,
    realised_labels,
    snapshots,
    survivorship_warning,
)

COLUMNS = ("open", "high", "low", "close", "volume", "adjusted_close")


@pytest.fixture(scope="module")
def prices() -> Prices:
    """Ticker 0 has a hole at 50, ticker 1 ends at 79, ticker 2 is whole; adjusted prices are not the raw ones."""
    whole = generate_prices(3, n_tickers=3, n_sessions=120)[0]
    arrays = {name: getattr(whole, name).copy() for name in COLUMNS}
    arrays["adjusted_close"] *= np.linspace(0.6, 1.0, 120)[:, None]
    for array in arrays.values():
        array[50, 0] = np.nan
        array[80:, 1] = np.nan
    return replace(whole, **arrays)


def by_hand(prices: Prices, horizon: int, entry: str, delisted: str) -> np.ndarray:
    """The definition, one ticker and session at a time."""
    price = prices.open if entry == "next_open" else prices.close
    price = price * prices.adjusted_close / prices.close
    count, names = price.shape
    found = np.full(price.shape, np.nan)
    for n in range(names):
        last = max(t for t in range(count) if not np.isnan(prices.close[t, n]))
        for t in range(count - 1 - horizon):
            bought, sold = price[t + 1, n], price[t + 1 + horizon, n]
            if delisted == "last_close" and last < t + 1 + horizon:
                sold = prices.adjusted_close[last, n]
            found[t, n] = sold / bought - 1
    return found


@pytest.mark.parametrize("entry", ["next_open", "next_close"])
@pytest.mark.parametrize("delisted", ["missing", "last_close"])
def test_forward_returns_equal_the_definition(prices, entry, delisted):
    for horizon, found in forward_returns(prices, (1, 5, 30, 119, 500), entry=entry, delisted=delisted).items():
        np.testing.assert_allclose(found, by_hand(prices, horizon, entry, delisted), atol=1e-14)


def test_the_convention_on_three_numbers(prices):
    found = forward_returns(prices, [1])[1]
    adjusted = prices.adjusted_open
    assert found[10, 2] == adjusted[12, 2] / adjusted[11, 2] - 1
    assert np.isnan(found[-2:]).all()
    assert np.isfinite(found[-3, 2])
    assert label_end(prices, 1)[10] == prices.sessions.dates[12]
    assert np.isnat(label_end(prices, 1)[-2:]).all()


def test_a_delisted_ticker_leaves_at_its_last_close(prices):
    missing = forward_returns(prices, [5])[5][:, 1]
    kept = forward_returns(prices, [5], delisted="last_close")[5][:, 1]
    assert np.isnan(missing[74:]).all()
    assert np.isfinite(kept[74:79]).all()
    assert np.isnan(kept[79:]).all()
    assert kept[78] == prices.adjusted_close[79, 1] / prices.adjusted_open[79, 1] - 1


def test_every_bar_is_accounted_for(prices):
    for horizon in (1, 5, 30, 200):
        counts = count_returns(prices, horizon).to_json()
        bars = counts.pop("bars")
        assert sum(counts.values()) == bars == int(prices.has_bar.sum())
        known = np.isfinite(forward_returns(prices, [horizon])[horizon]) & prices.has_bar
        assert counts["known"] == int(known.sum())
    assert count_returns(prices, 5).no_entry == 1
    assert count_returns(prices, 5).no_exit == 1
    assert count_returns(prices, 5).delisted == 6


def test_excess_over_the_benchmark(prices):
    plain, excess = forward_returns(prices, [5])[5], forward_returns(prices, [5], excess=True)[5]
    index = prices.benchmark.adjusted_open[:, 0]
    np.testing.assert_allclose((plain - excess)[:100, 2], index[6:106] / index[1:101] - 1)
    with pytest.raises(InputError, match=r"prices\.benchmark"):
        forward_returns(replace(prices, benchmark=None), excess=True)
    with pytest.raises(InputError, match="horizon 0"):
        forward_returns(prices, [0])


def test_a_universe_of_survivors_is_named(prices):
    assert survivorship_warning(prices) == ""
    picked = generate_prices(3, n_tickers=3, n_sessions=120)[0]
    assert "all 3 tickers trade to the last session" in survivorship_warning(picked)
    assert describe_prices(picked)["survivorship_warning"] == survivorship_warning(picked)


def test_realised_labels_follow_the_volatility(prices):
    options = LabelOptions(horizon=5, hold=0.5, strong=1.5)
    labels = realised_labels(prices, options)
    returns = forward_returns(prices, [5])[5]
    volatility = snapshots(prices).features["vol20"]
    seen = set()
    for t in range(120):
        for n, ticker in enumerate(prices.tickers):
            action = labels.action(ticker, prices.sessions.dates[t].item())
            z = np.log1p(returns[t, n]) / (volatility[t, n] * np.sqrt(5))
            if np.isnan(z):
                assert action is None
                continue
            wanted = int(np.sign(z)) * (int(abs(z) >= 0.5) + int(abs(z) >= 1.5))
            assert action is ACTIONS[wanted + 2]
            seen.add(action)
    assert seen == set(Action)
    assert sum(labels.shares.values()) == pytest.approx(1)
    assert labels.label_end[10] == prices.sessions.dates[16]
    with pytest.raises(InputError, match="is no session"):
        labels.action("S0", (prices.sessions.dates[0] - 1).item())
    with pytest.raises(ValueError, match="must be below strong"):
        LabelOptions(hold=2.0)


def test_the_planted_signal_is_what_the_snapshot_shows():
    for options in (
        SyntheticMarketOptions(n_sessions=200),
        SyntheticMarketOptions(n_sessions=200, feature="pos", reverting=False),
        SyntheticMarketOptions(n_sessions=200, feature="sma20", alpha=-0.3),
    ):
        prices, planted = generate_prices(2, options=options)
        shown = snapshots(prices)
        scaled = shown.scaled[planted.feature]
        if shown.scales[planted.feature] == "unit":
            scaled = (scaled - 0.5) * np.sqrt(12)
        sign = -1 if options.reverting else 1
        np.testing.assert_allclose(planted.signal, sign * np.clip(scaled, -2.5, 2.5), atol=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.15, -0.2])
def test_the_next_open_to_open_return_leans_on_the_signal_by_alpha(alpha):
    prices, planted = generate_prices(5, n_tickers=60, n_sessions=1200, alpha=alpha)
    growth = np.log1p(forward_returns(prices, [1])[1])
    known = np.isfinite(growth) & np.isfinite(planted.signal)
    z, s = (growth / planted.sigma)[known], planted.signal[known]
    slope = (z * s).mean() / (s * s).mean()
    assert abs(slope - alpha) < 0.02  # the common factor alone moves the slope by about 0.006
    assert abs((z - alpha * s).std() - 1) < 0.02
    np.testing.assert_allclose(planted.expected[known], alpha * (planted.sigma * planted.signal)[known])
    hits = ((z > 0) == (s * alpha > 0)).mean()
    if alpha:
        assert abs(hits - planted.direction_accuracy()) < 0.01
    else:
        assert planted.direction_accuracy() == 0.5


def test_the_same_seed_gives_the_same_market_and_noise():
    one, other = generate_prices(1, 4, 60)[0], generate_prices(1, 4, 60)[0]
    np.testing.assert_array_equal(one.close, other.close)
    assert not np.array_equal(one.close, generate_prices(2, 4, 60)[0].close)
    still = generate_prices(1, 4, 60, alpha=0.0)[0]
    np.testing.assert_array_equal(one.close[:20], still.close[:20])
    np.testing.assert_array_equal(one.volume, still.volume)
    assert (one.high >= np.maximum(one.open, one.close)).all()
    assert (one.low <= np.minimum(one.open, one.close)).all()
