"""The account against a slow one with decimals: every sizing strategy, cost model, limit and execution."""

from __future__ import annotations

from datetime import date, timedelta

import backtest_reference as reference
import numpy as np
import polars as pl
import pytest

from finseek.backtest import BacktestOptions, Signal, run_backtest, sweep
from finseek.backtest.options import Sizing
from finseek.backtest.simulate import simulate_equity
from finseek.core.actions import ACTIONS
from finseek.core.sessions import Sessions
from finseek.market import Prices

TOLERANCE = 1e-9
START, SESSIONS, TICKERS, FIRST, LAST = date(2024, 1, 1), 46, ("A", "B", "C", "D"), 13, 42


def day_of(k):
    """Weekdays from Monday, 1 January 2024, on."""
    return START + timedelta(days=k // 5 * 7 + k % 5)


def bars(gaps=True, seed=7):
    """Prices with gaps, a late listing, a delisting, splits and dividends in the raw ones, and thin volume."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.03, (SESSIONS, 4)), axis=0))
    open_ = np.vstack([close[:1], close[:-1]]) * np.exp(rng.normal(0, 0.01, (SESSIONS, 4)))
    high, low = np.maximum(open_, close) * 1.01, np.minimum(open_, close) * 0.99
    factor = np.where(np.arange(SESSIONS)[:, None] < 30, 2.0, 1.0) * np.array([1.0, 1.0, 1.01, 1.0])
    volume = rng.uniform(2e3, 2e4, (SESSIONS, 4))
    arrays = {"open": open_ * factor, "high": high * factor, "low": low * factor, "close": close * factor}
    arrays |= {"adjusted_close": close.copy(), "volume": volume}
    if gaps:
        for name, array in arrays.items():
            array[:16, 3] = np.nan
            array[38:, 1] = np.nan
            array[20, 0] = np.nan
            if name == "open":
                array[25, 2] = np.nan
    return Prices(Sessions.of([day_of(k) for k in range(SESSIONS)]), TICKERS, **arrays)


def opinions(seed=3, missing=0.25, weights=False, shorts=True):
    """Signals of some tickers on some days: a dict for the reference and a list for the backtest."""
    rng = np.random.default_rng(seed)
    plain, records = {}, []
    for t in TICKERS:
        for k in range(FIRST, LAST + 1):
            if rng.random() < missing and k not in (FIRST, LAST):
                continue
            p = rng.dirichlet(np.ones(5))
            action = ACTIONS[rng.choice(5, p=[0.1, 0.2, 0.3, 0.3, 0.1])]
            weight = float(rng.uniform(-0.3 if shorts else 0.0, 0.5))
            if weights:
                plain[t, k] = {"weight": weight}
                records.append(Signal(t, day_of(k), weight=weight))
            else:
                plain[t, k] = {"action": str(action), "p": p.tolist()}
                records.append(Signal(t, day_of(k), action, probabilities=tuple(p.tolist())))
    return plain, records


def with_parts(base, **changes):
    """Options from keys, those with a double underscore reaching into costs and limits."""
    tree = dict(base)
    for key, value in changes.items():
        part, _, name = key.partition("__")
        tree[part] = {**tree.get(part, {}), name: value} if name else value
    return BacktestOptions.model_validate({"nulls": 0, **tree})


LONG_SHORT = {"shorts": True, "volatility_window": 6}
SECTORS = {"A": "x", "B": "x", "C": "y"}
VARIANTS = {
    "defaults": {},
    "long only": {"shorts": False},
    "hold keep": {"hold": "keep"},
    "leverage": {"allow_leverage": True, "sizing_strategy": "fixed_pct", "fixed_pct": 0.6},
    "cash binds": {"shorts": False, "sizing_strategy": "fixed_pct", "fixed_pct": 0.6},
    "expiry 0": {"signal_expiry": 0},
    "expiry 1, keep": {"signal_expiry": 1, "hold": "keep"},
    "inverted map": {"action_map": dict(zip(ACTIONS, (1, 1, 0, -1, 0), strict=True))},
    "listed": {"equal_weight_over": "listed"},
    "active": {"equal_weight_over": "active"},
    "holding period": {"holding_period": 4},
    "holding period, keep": {"holding_period": 3, "hold": "keep"},
    **{f"sizing {name}": {"sizing_strategy": name} for name in Sizing.__args__},
    "kelly of few": {"sizing_strategy": "kelly", "kelly_history": 2, "kelly_cap": 0.4, "kelly_fraction": 1.0},
    "long only probabilities": {"sizing_strategy": "probability_weighted", "shorts": False},
    "max weight": {"limits__max_weight": 0.15},
    "max gross": {"limits__max_gross": 0.4, "hold": "keep"},
    "max net": {"limits__max_net": 0.1, "hold": "keep"},
    "max turnover": {"limits__max_turnover": 0.2},
    "max sector": {"limits__max_sector": 0.3, "limits__sectors": SECTORS, "hold": "keep"},
    "participation": {"limits__max_participation": 0.01, "limits__volume_window": 5},
    "weekly": {"rebalance": "weekly"},
    "on change": {"rebalance": "on_change"},
    "band": {"no_trade_band": 0.02},
    "next close": {"execution": "next_close"},
    "vwap": {"execution": "vwap_proxy"},
    "per share": {"costs__per_share": 0.01},
    "minimum": {"costs__minimum": 30.0, "shorts": False, "sizing_strategy": "fixed_pct", "fixed_pct": 0.5},
    "half spread": {"costs__half_spread": 0.002},
    "impact": {"costs__impact": 0.7},
    "impact, cash binds": {"costs__impact": 0.7, "shorts": False, "sizing_strategy": "fixed_pct", "fixed_pct": 0.6},
    "borrow": {"costs__borrow_fee": 0.3},
    "interest": {"costs__cash_interest": 0.05},
    "margin": {
        "costs__margin_interest": 0.1,
        "allow_leverage": True,
        "shorts": False,
        "sizing_strategy": "fixed_pct",
        "fixed_pct": 0.8,
    },
    "whole shares": {"fractional": False},
    "whole shares, cash binds": {
        "fractional": False,
        "shorts": False,
        "sizing_strategy": "fixed_pct",
        "fixed_pct": 0.6,
        "capital": 2_000.0,
    },
    "delisting at last price": {"delisting_loss": 0.0},
    "delisting at a loss": {"delisting_loss": 0.6, "hold": "keep"},
    "everything": {
        "hold": "keep",
        "sizing_strategy": "conviction",
        "limits__max_weight": 0.3,
        "limits__max_gross": 0.8,
        "limits__max_net": 0.3,
        "limits__max_turnover": 0.5,
        "limits__max_participation": 0.05,
        "costs__per_share": 0.005,
        "costs__minimum": 1.0,
        "costs__half_spread": 0.0005,
        "costs__impact": 0.3,
        "costs__borrow_fee": 0.05,
        "costs__cash_interest": 0.03,
        "costs__margin_interest": 0.07,
        "no_trade_band": 0.005,
        "fractional": False,
        "delisting_loss": 0.3,
        "execution": "vwap_proxy",
    },
}


def week(k):
    return k // 5


def difference(options, prices, plain, records, actions=None, action_table=None):
    expected = reference.account(prices, plain, options, monday=week, actions=actions)
    found = run_backtest(records, prices, options, actions=action_table)
    ours = found.account.equity
    assert len(ours) == len(expected)
    theirs = np.array([float(value) for value in expected])
    again = simulate_equity(found.weights[None], found.tape, options)[0]
    assert np.abs(again / ours - 1).max() < 1e-12
    return np.abs(ours / theirs - 1).max(), found


@pytest.fixture(scope="module")
def market():
    return bars()


@pytest.mark.parametrize("name", VARIANTS)
def test_equal_to_the_decimal_account(market, name):
    options = with_parts(LONG_SHORT, **VARIANTS[name])
    plain, records = opinions()
    error, found = difference(options, market, plain, records)
    assert error < TOLERANCE
    assert found.account.traded.any()


def test_every_choice_of_the_options_is_compared():
    """No sizing strategy, limit, cost or other choice is without a variant."""
    used = {(key, value) for variant in VARIANTS.values() for key, value in variant.items() if isinstance(value, str)}
    keys = {key for variant in VARIANTS.values() for key in variant}
    assert {value for key, value in used if key == "sizing_strategy"} == set(Sizing.__args__)
    fields = BacktestOptions.model_fields
    for part in ("costs", "limits"):
        for name in fields[part].annotation.model_fields:
            assert f"{part}__{name}" in keys, name
    elsewhere = {
        *("capital", "costs", "limits", "transaction_cost", "slippage", "dividends", "actions_file", "risk_free"),
        *("volatility_window", "target_volatility", "strong_conviction"),
        *("momentum_window", "reversal_window", "nulls", "null_seed", "bootstrap_resamples", "mean_block"),
    }
    assert set(fields) - elsewhere <= keys


def test_a_limit_that_is_asked_for_binds(market):
    """The comparison above would be idle if no order ever met the limit."""
    _, records = opinions()
    seen = set()
    for changes in VARIANTS.values():
        found = run_backtest(records, market, with_parts(LONG_SHORT, **changes))
        seen |= set(found.rejected["reason"])
    limits = {f"max_{name}" for name in ("weight", "gross", "net", "turnover", "sector", "participation")}
    assert seen >= {"no price", "no volume", "cash", "no_trade_band", "whole_shares", *limits}


@pytest.mark.parametrize("shorts", [False, True])
def test_given_weights(market, shorts):
    plain, records = opinions(weights=True, shorts=shorts)
    error, _ = difference(with_parts({"shorts": shorts}), market, plain, records)
    assert error < TOLERANCE


def test_dividends_in_cash_and_splits(tmp_path):
    """Raw prices halve at a split and fall by a dividend; holders get the money, shorts pay it."""
    prices = bars(gaps=False)
    actions = [
        *({"ticker": t, "day": 30, "dividend": 0.0, "split": 2.0} for t in "ABD"),
        {"ticker": "C", "day": 30, "dividend": 0.8, "split": 2.0},
        {"ticker": "A", "day": 20, "dividend": 1.5, "split": 1.0},
    ]
    path = tmp_path / "actions.csv"
    lines = [
        {"ticker": a["ticker"], "date": day_of(a["day"]), "dividend": a["dividend"], "split": a["split"]}
        for a in actions
    ]
    pl.DataFrame(lines).write_csv(path)
    plain, records = opinions()
    for changes in ({}, {"hold": "keep", "costs__borrow_fee": 0.1}, {"fractional": False}):
        options = with_parts(LONG_SHORT, dividends="cash", actions_file=path, **changes)
        error, found = difference(options, prices, plain, records, actions=actions)
        assert error < TOLERANCE
        assert (found.account.income != 0).any()


def test_sweep_returns_what_single_runs_return(market):
    _, records = opinions()
    grid = {"slippage": [0.0, 0.002], "hold": ["flat", "keep"], "limits.max_gross": [None, 0.5]}
    found = sweep(records, market, with_parts(LONG_SHORT), grid)
    assert found.returns.shape == (LAST - FIRST + 1, 8)
    for options, column, line in zip(found.options, found.returns.T, found.metrics.iter_rows(named=True), strict=True):
        single = run_backtest(records, market, options)
        assert np.allclose(single.equity["equity"].pct_change()[1:], column, rtol=0, atol=1e-14)
        assert line["sharpe"] == pytest.approx(single.metrics["performance"]["sharpe"], rel=1e-10)


CHOICES = {
    "shorts": (False, True),
    "hold": ("flat", "keep"),
    "signal_expiry": (0, 2, 5),
    "holding_period": (None, None, 1, 3),
    "sizing_strategy": Sizing.__args__,
    "equal_weight_over": ("universe", "listed", "active"),
    "fixed_pct": (0.1, 0.6),
    "kelly_history": (2, 20),
    "target_volatility": (0.1, 1.0),
    "volatility_window": (3, 8),
    "rebalance": ("daily", "daily", "on_change", "weekly"),
    "no_trade_band": (0.0, 0.03),
    "execution": ("next_open", "next_close", "vwap_proxy"),
    "fractional": (True, False),
    "allow_leverage": (False, True),
    "delisting_loss": (None, 0.0, 0.7),
    "capital": (3_000.0, 100_000.0),
    "transaction_cost": (0.0, 0.001, 0.02),
    "slippage": (0.0, 0.0005, 0.01),
    "costs__per_share": (0.0, 0.0, 0.02),
    "costs__minimum": (0.0, 0.0, 5.0),
    "costs__half_spread": (0.0, 0.001),
    "costs__impact": (0.0, 0.0, 0.5),
    "costs__borrow_fee": (0.0, 0.2),
    "costs__cash_interest": (0.0, 0.05),
    "costs__margin_interest": (0.0, 0.1),
    "limits__max_weight": (None, 0.2),
    "limits__max_gross": (None, 0.5),
    "limits__max_net": (None, 0.2),
    "limits__max_turnover": (None, 0.3),
    "limits__max_participation": (None, None, 0.02),
    "limits__volume_window": (1, 6),
}


def compare_random(seed):
    """One random market, list of signals and set of options against the decimal account."""
    rng = np.random.default_rng(seed)
    changes = {key: values[rng.integers(len(values))] for key, values in CHOICES.items()}
    if changes["holding_period"] is not None:
        changes["rebalance"] = "daily"
    plain, records = opinions(seed=seed, missing=rng.choice([0.0, 0.3, 0.7]))
    error, _ = difference(with_parts({}, **changes), bars(gaps=bool(rng.integers(2)), seed=seed), plain, records)
    assert error < TOLERANCE, changes


@pytest.mark.parametrize("seed", range(25))
def test_random_options_equal_the_decimal_account(seed):
    compare_random(seed)


@pytest.mark.soak
@pytest.mark.parametrize("block", range(20))
def test_many_random_options_equal_the_decimal_account(block):
    for seed in range(1000 + 100 * block, 1100 + 100 * block):
        compare_random(seed)
