"""Rendering, missing history, context, and a feature of one's own."""

from __future__ import annotations

import re
import sys
import types
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from finseek.core.errors import ConfigError, InputError
from finseek.core.sessions import Sessions
from finseek.market import Prices, SnapshotOptions, generate_prices, snapshots
from finseek.market.features import FEATURES
from finseek.market.rolling import rolling_max, rolling_mean, rolling_min, rolling_std, rolling_sum
from finseek.market.snapshot import bin_of, edges, tenths

COLUMNS = ("open", "high", "low", "close", "volume", "adjusted_close")
WORD = re.compile(r"[a-z0-9_]+=(na|[a-z]|[+-]\d\.\d)")


@pytest.fixture(scope="module")
def prices() -> Prices:
    return generate_prices(7, n_tickers=3, n_sessions=300)[0]


def without(prices: Prices, rows: slice, column: int) -> Prices:
    arrays = {name: getattr(prices, name).copy() for name in COLUMNS}
    for array in arrays.values():
        array[rows, column] = np.nan
    return replace(prices, **arrays)


@given(n=st.integers(2, 70), size=st.integers(1, 90), seed=st.integers(0, 99))
def test_rolling_windows_equal_brute_force(n, size, seed):
    x = np.random.default_rng(seed).normal(size=(size, 2))
    table = {
        rolling_sum: lambda w: w.sum(-1),
        rolling_mean: lambda w: w.mean(-1),
        rolling_min: lambda w: w.min(-1),
        rolling_max: lambda w: w.max(-1),
        rolling_std: lambda w: w.std(-1, ddof=1),
    }
    for fast, slow in table.items():
        found = fast(x, n)
        assert np.isnan(found[: n - 1]).all()
        if n <= size:
            np.testing.assert_allclose(found[n - 1 :], slow(sliding_window_view(x, n, axis=0)), rtol=1e-12, atol=1e-13)


def test_a_deviation_of_equal_values_is_exactly_zero():
    assert (rolling_std(np.full((50, 1), 0.1), 20)[19:] == 0).all()


@pytest.mark.parametrize("rendering", ["words", "numbers"])
def test_text_is_one_word_a_feature(prices, rendering):
    shown = snapshots(prices, SnapshotOptions(rendering=rendering))
    text = shown.text("S1", prices.sessions.dates[280].item())
    words = text.split(" ")
    assert [word.split("=")[0] for word in words] == list(FEATURES)
    assert all(WORD.fullmatch(word) for word in words)
    assert "na" not in text
    early = shown.text("S1", prices.sessions.dates[0].item())
    assert early.split(" ")[0] == "ret1=na"
    assert early.count("=na") == len(FEATURES) - 1
    assert not early.split("pos=")[1].startswith("na")


def test_words_are_quantiles_of_the_normal_and_numbers_tenths():
    normal = NormalDist()
    assert edges("normal", 4).tolist() == [normal.inv_cdf(q) for q in (0.25, 0.5, 0.75)]
    assert edges("unit", 4).tolist() == [0.25, 0.5, 0.75]
    values = np.array([-np.inf, -0.7, -0.6, 0.0, 9.0, np.nan])
    assert bin_of(values, "normal", 4).tolist() == [0, 0, 1, 2, 3, -1]
    assert bin_of(np.array([0.0, 0.25, 1.0]), "unit", 4).tolist() == [0, 1, 3]
    numbers = np.array([-20.0, -0.04, 0.0, 1.26, 20.0, np.nan])
    assert (tenths(numbers, "normal") - 99).tolist() == [-99, 0, 0, 13, 99, -100]
    assert (tenths(np.array([0.0, 0.5, 1.0]), "unit") - 99).tolist() == [-50, 0, 50]


def test_numbers_have_a_sign_and_one_decimal(prices):
    day = prices.sessions.dates[200].item()
    shown = snapshots(prices, SnapshotOptions(features=("ret5", "pos"), rendering="numbers"))
    row, column = shown.place("S2", day)
    ret5, pos = (float(word.split("=")[1]) for word in shown.text("S2", day).split(" "))
    assert abs(ret5 - shown.scaled["ret5"][row, column]) <= 0.05 + 1e-9
    assert abs(pos - (10 * shown.scaled["pos"][row, column] - 5)) <= 0.05 + 1e-9


def test_what_has_no_bar_has_no_snapshot(prices):
    shown = snapshots(without(prices, slice(100, 101), 1))
    with pytest.raises(InputError, match="S1 has no bar on"):
        shown.text("S1", prices.sessions.dates[100].item())
    with pytest.raises(InputError, match="is no session"):
        shown.text("S1", (prices.sessions.dates[0] - 1).item())
    with pytest.raises(InputError, match="'ZZ' is not in the price table"):
        shown.text("ZZ", prices.sessions.dates[100].item())


def test_a_short_hole_is_skipped_and_a_long_one_breaks_history(prices):
    own = {name: np.delete(getattr(prices, name)[:, 1], 150) for name in COLUMNS}
    shorter = Prices(
        Sessions(np.delete(prices.sessions.dates, 150)), ("S1",), **{n: a[:, None] for n, a in own.items()}
    )
    holed = snapshots(without(prices, slice(150, 151), 1)).features
    for name, value in snapshots(shorter).features.items():
        np.testing.assert_array_equal(np.delete(holed[name][:, 1], 150), value[:, 0], err_msg=name)
    broken = snapshots(without(prices, slice(150, 200), 1)).features
    assert np.isnan(broken["ret5"][200:205, 1]).all()
    assert np.isfinite(broken["ret5"][205:, 1]).all()
    assert np.isfinite(broken["ret60"][215:, 1]).any()


def test_a_formula_that_ignores_missing_bars_cannot_fill_them(prices, monkeypatch):
    constant = replace(FEATURES["pos"], formula=lambda bars: np.full(bars.close.shape, 0.5))
    monkeypatch.setitem(FEATURES, "pos", constant)
    shown = snapshots(without(prices, slice(100, 103), 1))
    assert np.isnan(shown.features["pos"][100:103, 1]).all()
    assert (shown.features["pos"][103:, 1] == 0.5).all()


def test_missing_history_is_never_zero(prices):
    late = snapshots(without(prices, slice(0, 120), 0))
    assert np.isnan(late.features["ret60"][:180, 0]).all()
    assert np.isfinite(late.features["ret60"][180:, 0]).all()
    assert (late.bins("ret60")[:180, 0] == -1).all()
    flat = replace(prices, **{name: np.full(prices.close.shape, 10.0) for name in COLUMNS})
    shown = snapshots(flat)
    assert np.isnan(shown.scaled["ret5"]).all()
    assert np.isnan(shown.scaled["pos"]).all()
    assert (shown.features["ret5"][5:] == 0).all()


def test_context_is_shown_to_every_ticker(prices):
    options = SnapshotOptions(features=("ret5",), context=("universe", "benchmark"), context_features=("ret1", "vol20"))
    shown = snapshots(prices, options)
    assert list(shown.scaled) == ["ret5", "mkt_ret1", "mkt_vol20", "bmk_ret1", "bmk_vol20"]
    mean = (prices.adjusted_close[1:] / prices.adjusted_close[:-1] - 1).mean(axis=1)
    np.testing.assert_allclose(shown.features["mkt_ret1"][1:, 0], mean, atol=1e-13)
    np.testing.assert_array_equal(shown.features["mkt_ret1"][:, 0], shown.features["mkt_ret1"][:, 2])
    index = prices.benchmark.adjusted_close[:, 0]
    np.testing.assert_allclose(shown.features["bmk_ret1"][1:, 1], index[1:] / index[:-1] - 1, atol=1e-13)
    assert "bmk_vol20=" in shown.text("S0", prices.sessions.dates[50].item())
    with pytest.raises(ConfigError, match=r"prices\.benchmark"):
        snapshots(replace(prices, benchmark=None), options)


def test_the_universe_mean_ignores_who_did_not_trade(prices):
    shown = snapshots(without(prices, slice(0, 200), 1), SnapshotOptions(context=("universe",)))
    mean = (prices.adjusted_close[1:200, [0, 2]] / prices.adjusted_close[:199, [0, 2]] - 1).mean(axis=1)
    np.testing.assert_allclose(shown.features["mkt_ret1"][1:200, 0], mean, atol=1e-13)


def test_a_feature_of_ones_own_takes_five_lines(prices, monkeypatch):
    module = types.ModuleType("my_features")
    exec(
        "import numpy as np\n"
        "from finseek.market.features import Feature\n"
        "from finseek.market.rolling import rolling_max, rolling_min\n"
        "range5 = lambda bars: np.log(rolling_max(bars.high, 5) / rolling_min(bars.low, 5))\n"
        "RANGE5 = Feature('range5', 'range of 5 sessions', 'log', 4, range5, lambda x, vol: np.log(x / (3 * vol)))\n",
        module.__dict__,
    )
    monkeypatch.setitem(sys.modules, "my_features", module)
    options = SnapshotOptions.model_validate_json('{"features": ["ret5", "my_features:RANGE5"]}')
    shown = snapshots(prices, options)
    assert list(shown.scaled) == ["ret5", "range5"]
    highest = prices.adjusted_high[95:100, 1].max()
    np.testing.assert_allclose(shown.features["range5"][99, 1], np.log(highest / prices.adjusted_low[95:100, 1].min()))
    assert WORD.fullmatch(shown.text("S1", prices.sessions.dates[99].item()).split(" ")[1])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (("ret6",), "'ret6' is unknown; the nearest is ret"),
        (("ret5", "ret5"), "ret5 is listed twice"),
        ((), "at least one"),
        (("no_such_module:X",), "cannot be loaded"),
        (("math:pi",), "is a float, not a"),
    ],
)
def test_wrong_features_are_refused_by_the_options(features, message):
    with pytest.raises(ValueError, match=message):
        SnapshotOptions(features=features)


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_scaled_features_fill_the_bins(name):
    """On a market of random walks no bin is empty and none holds a third: the constants fit the features."""
    walk = generate_prices(1, n_tickers=40, n_sessions=700, alpha=0.0)[0]
    bins = snapshots(walk, SnapshotOptions(features=(name,))).bins(name)
    share = np.bincount(bins[bins >= 0], minlength=16) / (bins >= 0).sum()
    assert share.max() < 1 / 3
    assert share.min() > 0
