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
from finseek.market import Prices

TOLERANCE = 1e-10
KEPT = json.loads(Path(__file__).with_name("backtest_oracles.json").read_text())


@pytest.fixture(scope="module")
def tape():
    open_, close = (np.array(KEPT["account"][name]) for name in ("open", "close"))
    sessions = Sessions.of(np.datetime64("2024-01-01") + np.arange(len(close)))
    high, low, volume = np.maximum(open_, close), np.minimum(open_, close), np.ones(close.shape)
    prices = Prices(sessions, ("A", "B", "C"), open_, high, low, close, volume, close)
    return build_tape(prices, 0, len(close) - 1, OPTIONS)


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


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="the part [speed] is not installed")
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
