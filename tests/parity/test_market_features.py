"""Features against pandas (independent, the one of the benchmark) to 1e-12, with holes and without."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finseek.market import Prices, PricesOptions, forward_returns, generate_prices, load_prices, snapshots
from finseek.market.features import FEATURES, Feature

TOLERANCE = 1e-12


@pytest.fixture(scope="module")
def peer():
    path = Path(__file__).parents[2] / "benchmarks" / "market_snapshots.py"
    spec = importlib.util.spec_from_file_location("market_snapshots", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def with_holes(prices: Prices, seed: int = 0) -> Prices:
    """Some bars missing, one ticker listed late, one delisted."""
    hole = np.random.default_rng(seed).random(prices.close.shape) < 0.01
    hole[:90, 0] = True
    hole[400:, 1] = True
    names = ("open", "high", "low", "close", "volume", "adjusted_close")
    return replace(prices, **{name: np.where(hole, np.nan, getattr(prices, name)) for name in names})


def worst(peer, prices: Prices) -> dict[str, float]:
    """Largest difference of each feature and scaled feature, relative where values are above 1."""
    table = peer.pandas_table(prices)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = peer.pandas_features(table, ema="cut_ewm")
        scaled = peer.pandas_scaled(values)
    column, row = np.nonzero(prices.has_bar.T)
    ours = snapshots(prices)
    found = {}
    for kind, theirs, mine in (("", values, ours.features), ("scaled ", scaled, ours.scaled)):
        assert set(theirs) == set(mine) == set(FEATURES)
        for name, series in theirs.items():
            their = series.to_numpy()
            our = mine[name][row, column]
            known = np.isfinite(our)
            # pandas knows values earlier than ours only where the scale is still unknown
            assert np.isfinite(their[known]).all(), name
            assert (np.isnan(our) == np.isnan(their)).mean() > 0.98, name
            gap = np.abs(our - their)[known] / np.maximum(np.abs(their[known]), 1)
            found[kind + name] = float(gap.max())
    return found


def check(peer, prices: Prices) -> None:
    for name, gap in worst(peer, prices).items():
        # scaled values are rounded to nine decimals before they are cut into bins
        assert gap <= (5.1e-10 if name.startswith("scaled") else TOLERANCE), (name, gap)


def test_features_agree_with_pandas(peer):
    check(peer, generate_prices(2, n_tickers=5, n_sessions=600)[0])


def test_features_agree_with_pandas_by_own_bars_where_bars_are_missing(peer):
    check(peer, with_holes(generate_prices(2, n_tickers=5, n_sessions=600)[0]))


@pytest.mark.realdata
def test_features_agree_with_pandas_on_the_real_prices(peer, real_prices):
    check(peer, load_prices(real_prices, PricesOptions(benchmark="SPY")))


def test_a_feature_that_is_a_bar_late_is_noticed(peer, monkeypatch):
    right = FEATURES["sma20"]
    monkeypatch.setitem(FEATURES, "sma20", replace(right, formula=lambda bars: np.roll(right.formula(bars), 1, axis=0)))
    with pytest.raises(AssertionError, match="sma20"):
        check(peer, generate_prices(2, n_tickers=5, n_sessions=600)[0])


def test_forward_returns_agree_with_pandas(peer):
    prices = generate_prices(4, n_tickers=3, n_sessions=80)[0]
    prices = replace(prices, adjusted_close=prices.close * np.linspace(0.5, 1, 80)[:, None])
    table = peer.pandas_table(prices)
    for horizon, series in peer.pandas_returns(table).items():
        theirs = series.to_numpy().reshape(3, 80).T
        np.testing.assert_allclose(forward_returns(prices)[horizon], theirs, rtol=TOLERANCE)


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_a_feature_needs_exactly_its_window(name):
    """The declared window is true: with one bar less there is no value, with it that of a long history."""
    feature: Feature = FEATURES[name]
    prices = generate_prices(9, n_tickers=2, n_sessions=300)[0]
    whole = snapshots(prices).features[name]
    t = 280
    for less, there in ((0, True), (1, False)):
        rows = slice(t - feature.window + less, t + 1)
        if rows.start > t:
            continue
        columns = {c: getattr(prices, c)[rows] for c in ("open", "high", "low", "close", "volume", "adjusted_close")}
        short = replace(prices, sessions=type(prices.sessions)(prices.sessions.dates[rows]), benchmark=None, **columns)
        value = snapshots(short).features[name][-1]
        assert np.isfinite(value).all() == there
        if there:
            np.testing.assert_allclose(value, whole[t], rtol=1e-10)
