"""The account against vectorbt, the measures against empyrical and quantstats (kept figures, see the make script)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from finseek.backtest import BacktestOptions, performance
from finseek.backtest.simulate import simulate, simulate_equity
from finseek.backtest.tape import build_tape
from finseek.core.sessions import Sessions
from finseek.market import Prices, PricesOptions, load_prices

_spec = importlib.util.spec_from_file_location("backtest_books", Path(__file__).with_name("backtest_books.py"))
drawn = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(drawn)

TOLERANCE = 1e-10
KEPT = json.loads(Path(__file__).with_name("backtest_oracles.json").read_text())


def tape_of(open_, close):
    sessions = Sessions.of(np.datetime64("2014-01-01") + np.arange(len(close)))
    names = tuple(f"T{k:03d}" for k in range(close.shape[1]))
    high, low, volume = np.maximum(open_, close), np.minimum(open_, close), np.ones(close.shape)
    return build_tape(Prices(sessions, names, open_, high, low, close, volume, close), 0, len(close) - 1, OPTIONS)


@pytest.fixture(scope="module")
def tape():
    return tape_of(*(np.array(KEPT["account"][name]) for name in ("open", "close")))


OPTIONS = BacktestOptions(
    transaction_cost=KEPT["account"]["fee"],
    slippage=KEPT["account"]["slippage"],
    capital=KEPT["account"]["capital"],
    shorts=True,
)


@pytest.mark.parametrize("name", KEPT["books"])
def test_equity_equals_vectorbt(tape, name):
    case = KEPT["books"][name]
    weights = np.array(case["weights"], dtype=float)
    ours = simulate(weights, tape, OPTIONS).equity
    assert np.abs(ours / np.array(case["equity"]) - 1).max() < TOLERANCE
    assert np.abs(ours / simulate_equity(weights[None], tape, OPTIONS)[0] - 1).max() < 1e-13


def test_equity_of_500_names_on_2520_sessions_equals_vectorbt():
    open_, close, books = drawn.large()
    market = tape_of(open_, close)
    assert books.keys() == KEPT["large"].keys()
    for name, weights in books.items():
        ours = simulate(weights, market, OPTIONS).equity[:: drawn.STRIDE]
        assert np.abs(ours / np.array(KEPT["large"][name]) - 1).max() < TOLERANCE, name


@pytest.mark.realdata
def test_equity_of_random_books_on_the_real_prices_equals_vectorbt(real_prices):
    prices = load_prices(real_prices, PricesOptions(benchmark="SPY"))
    steps = drawn.REAL_ROWS - 1
    market = build_tape(prices, len(prices.sessions) - drawn.REAL_ROWS, steps, OPTIONS)
    books = drawn.books(np.random.default_rng(5), steps, len(prices.tickers))
    assert books.keys() == KEPT["real"].keys()
    for name, weights in books.items():
        assert abs(simulate(weights, market, OPTIONS).equity[-1] / KEPT["real"][name] - 1) < TOLERANCE, name


def test_compiled_kernel_gives_the_same_numbers(tape):
    from finseek.backtest.kernel import numba_equity

    books = np.stack([np.array(case["weights"], dtype=float) for case in KEPT["books"].values()])
    hungry = np.nan_to_num(books[:1]) * 3
    weights, which = np.concatenate([books, hungry]), np.array([0, 1, 2, 3, 3])
    options = [OPTIONS] * 4 + [OPTIONS.model_copy(update={"allow_leverage": True, "slippage": 0.01})]
    found = numba_equity(weights, which, tape, options)
    for curve, book, one in zip(found, which, options, strict=True):
        assert np.abs(curve / simulate(weights[book], tape, one).equity - 1).max() < 1e-12
    assert not np.allclose(found[3], found[4])


def ours(series):
    r = np.array(series["returns"])
    equity = np.concatenate([[1.0], np.cumprod(1 + r)])
    relative = performance.relative_metrics(r, np.array(series["benchmark"]))
    return {
        **performance.curve_metrics(equity),
        **relative,
        "sharpe at 4 %": performance.sharpe_ratio(r, 0.04),
        "profit_factor": performance.profit_factor(r),
        "alpha_compounded": (1 + relative["alpha_annual"] / 252) ** 252 - 1,
    }


@pytest.mark.parametrize("library", ["empyrical", "quantstats"])
@pytest.mark.parametrize("series", KEPT["series"], ids=lambda s: str(len(s["returns"])))
def test_measures_equal_the_library(series, library):
    found = ours(series)
    for name, value in series[library].items():
        if name != "normal_var_95":
            assert found[name] == pytest.approx(value, rel=TOLERANCE), name


@pytest.mark.parametrize("series", KEPT["series"], ids=lambda s: str(len(s["returns"])))
def test_quantstats_value_at_risk_is_that_of_a_normal_distribution(series):
    """Where the definitions differ, as the docstring of value_at_risk says."""
    r = np.array(series["returns"])
    normal = r.mean() - 1.6448536269514722 * r.std(ddof=1)
    assert series["quantstats"]["normal_var_95"] == pytest.approx(normal, rel=1e-9)
    assert performance.value_at_risk(r) != pytest.approx(normal, rel=1e-3)
