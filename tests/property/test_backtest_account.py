"""What holds of the account whatever the signals and prices."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from finseek.backtest import BacktestOptions, Signal, exposure_matched_excess, ledger, run_backtest
from finseek.backtest.options import CostOptions, LimitOptions
from finseek.backtest.simulate import simulate
from finseek.backtest.tape import build_tape
from finseek.core.actions import ACTIONS, Action
from finseek.core.sessions import Sessions
from finseek.market import Prices

START = date(2024, 1, 1)
common = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
FREE = {"transaction_cost": 0.0, "slippage": 0.0, "nulls": 0}
INVERSE = {action: ACTIONS[4 - ACTIONS.index(action)] for action in ACTIONS}


def table(open_, close, volume=None, adjusted=None):
    names = tuple(chr(65 + k) for k in range(close.shape[1]))
    sessions = Sessions.of([START + timedelta(days=k) for k in range(len(close))])
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    volume = np.full(close.shape, 1e7) if volume is None else volume
    return Prices(sessions, names, open_, high, low, close, volume, close if adjusted is None else adjusted)


@st.composite
def markets(draw, gaps=True):
    """A random market of 4 to 30 sessions and 1 to 5 names, some bars missing, and signals on it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, names = draw(st.integers(4, 30)), draw(st.integers(1, 5))
    scale = draw(st.sampled_from([0.005, 0.03, 0.1]))
    close = 100 * np.exp(np.cumsum(rng.normal(0, scale, (rows, names)), axis=0))
    open_ = np.vstack([close[:1], close[:-1]]) * np.exp(rng.normal(0, scale / 2, (rows, names)))
    if gaps and draw(st.booleans()):
        missing = rng.random((rows, names)) < 0.15
        missing[0] = missing[-1] = False
        open_, close = (np.where(missing, np.nan, x) for x in (open_, close))
    prices = table(open_, close)
    share = draw(st.sampled_from([0.3, 1.0]))
    signals = [
        Signal(t, START + timedelta(days=k), ACTIONS[rng.integers(5)])
        for t in prices.tickers
        for k in range(rows - 1)
        if rng.random() < share or k in (0, rows - 2)
    ]
    return prices, signals


choices = st.fixed_dictionaries(
    {
        "shorts": st.booleans(),
        "hold": st.sampled_from(["flat", "keep"]),
        "signal_expiry": st.sampled_from([0, 2, 5]),
        "allow_leverage": st.booleans(),
        "sizing_strategy": st.sampled_from(["equal_weight", "fixed_pct", "conviction"]),
        "fixed_pct": st.sampled_from([0.1, 0.5]),
        "transaction_cost": st.sampled_from([0.0, 0.001, 0.02]),
        "slippage": st.sampled_from([0.0, 0.002]),
        "execution": st.sampled_from(["next_open", "next_close", "vwap_proxy"]),
        "fractional": st.booleans(),
        "costs": st.sampled_from([CostOptions(), CostOptions(borrow_fee=0.1, cash_interest=0.02, minimum=1.0)]),
        "limits": st.sampled_from([LimitOptions(), LimitOptions(max_gross=0.5, max_turnover=0.4)]),
        "delisting_loss": st.sampled_from([None, 0.5]),
        "nulls": st.just(0),
    }
)
# Everything that looks back: what a decision knows of volatility, volume and its own past.
looking_back = st.fixed_dictionaries(
    {
        "equal_weight_over": st.sampled_from(["universe", "listed", "active"]),
        "volatility_window": st.just(3),
        "kelly_history": st.just(2),
        "rebalance": st.sampled_from(["daily", "on_change", "weekly"]),
        "costs": st.sampled_from([CostOptions(), CostOptions(impact=0.5)]),
        "limits": st.sampled_from([LimitOptions(), LimitOptions(max_participation=1e-5, volume_window=3)]),
    }
)


def everywhere(prices, action):
    days = range(len(prices.sessions) - 1)
    return [Signal(t, START + timedelta(days=k), action) for t in prices.tickers for k in days]


def replaced(signals, action):
    return [Signal(s.ticker, s.as_of_date, action) for s in signals]


@common
@given(markets(), choices)
def test_every_cent_is_accounted_for(market, chosen):
    """Equity is cash and positions; cash moves by orders, costs and payments; profits, trips and ledger sum up."""
    prices, signals = market
    result = run_backtest(signals, prices, BacktestOptions(**chosen))
    a = result.account
    close = {"rtol": 0, "atol": 1e-6}
    assert np.allclose(a.equity, a.cash + a.held.sum(axis=1), **close)
    flow = (a.traded + a.slippage + a.commission - a.income).sum(axis=1) - a.interest
    assert np.allclose(a.cash, 100_000 - np.cumsum(flow), **close)
    assert np.allclose(a.held, (a.before + a.traded) * result.tape.after, **close)
    gained = a.equity[-1] - a.equity[0]
    assert ledger.name_profit(a).sum() + a.interest.sum() == pytest.approx(gained, abs=1e-6)
    assert result.trades["profit"].sum() + a.interest.sum() == pytest.approx(gained, abs=1e-6)
    for table_ in ("side", "ticker", "month"):
        rest = a.interest.sum() if table_ == "ticker" else 0.0
        assert sum(result.metrics["attribution"][table_].values()) + rest == pytest.approx(gained, abs=1e-6)
    lines = result.ledger().group_by("date").agg(pl.col("closing", "profit").sum()).sort("date")
    assert np.allclose(lines["closing"].to_numpy(), a.equity, **close)
    assert np.allclose(lines["profit"].to_numpy()[1:], np.diff(a.equity), **close)
    if not chosen["allow_leverage"] and not chosen["shorts"]:
        assert a.cash.min() > -1e-6
    if not chosen["shorts"]:
        assert a.held.min() > -1e-6


@common
@given(markets(), choices)
def test_without_a_position_the_equity_is_flat(market, chosen):
    prices, signals = market
    plain = {**chosen, "costs": CostOptions()}
    for silent in (replaced(signals, Action.HOLD), replaced(signals, None)):
        result = run_backtest(silent, prices, BacktestOptions(**plain))
        assert (result.account.equity == 100_000.0).all()
        assert result.metrics["performance"]["total_return"] == 0.0


@common
@given(markets(gaps=False))
def test_all_sell_is_the_exact_negative_of_all_buy_at_the_open(market):
    prices, _ = market
    options = BacktestOptions(shorts=True, allow_leverage=True, **FREE)
    buy, sell = (
        run_backtest(everywhere(prices, x), prices, options).account.equity_at_open for x in (Action.BUY, Action.SELL)
    )
    assert np.abs(buy[1:] / buy[:-1] + sell[1:] / sell[:-1] - 2).max() < 1e-14


@common
@given(markets(gaps=False))
def test_with_a_fixed_notional_the_daily_profit_is_the_exact_negative(market):
    """Weights notional / E, the same money in every name each day, long and short."""
    prices, _ = market
    options = BacktestOptions(shorts=True, allow_leverage=True, **FREE)
    tape = build_tape(prices, 0, len(prices.sessions) - 1, options)
    profits = []
    for side in (1.0, -1.0):
        weights = np.zeros((len(prices.sessions) - 1, len(prices.tickers)))
        for k in range(len(weights)):
            opened = simulate(weights, tape, options).equity_at_open[k + 1]
            weights[k] = side * 1_000.0 / opened
        account = simulate(weights, tape, options)
        profits.append(np.diff(account.equity))
    assert np.allclose(profits[0], -profits[1], rtol=0, atol=1e-7)


@common
@given(markets(gaps=False))
def test_inverted_actions_change_every_directional_measure(market):
    prices, signals = market
    options = BacktestOptions(shorts=True, allow_leverage=True, **FREE)
    a, b = (
        run_backtest(s, prices, options)
        for s in (signals, [Signal(s.ticker, s.as_of_date, INVERSE[s.action]) for s in signals])
    )
    assume(a.account.traded.any())
    assert np.sign(a.weights) == pytest.approx(-np.sign(b.weights), nan_ok=True)
    ours, theirs = a.metrics["performance"], b.metrics["performance"]
    for name in ("total_return", "net_exposure", "sharpe", "sortino", "hit_rate_days"):
        if ours[name] not in (None, 0.0, 0.5):
            assert ours[name] != theirs[name], name
    sides = [{s: m.metrics["attribution"]["side"][s] for s in ("long", "short")} for m in (a, b)]
    assert (sides[0]["long"] != 0) == (sides[1]["short"] != 0)


@common
@given(markets(gaps=False), st.sampled_from(["transaction_cost", "slippage"]), st.floats(0.0, 0.01))
def test_higher_costs_never_help_on_fixed_trades(market, name, low):
    """The same money traded: the weights of the cheaper run, in money, priced again with more costs."""
    prices, signals = market
    cheap = BacktestOptions(shorts=True, allow_leverage=True, **{**FREE, name: low})
    dear = BacktestOptions(shorts=True, allow_leverage=True, **{**FREE, name: low + 0.005})
    first = run_backtest(signals, prices, cheap)
    wanted = first.account.before + first.account.traded
    weights = np.full(first.weights.shape, np.nan)
    for k in range(len(weights)):
        opened = simulate(weights, first.tape, dear).equity_at_open[k + 1]
        weights[k] = wanted[k + 1] / opened
    second = simulate(weights, first.tape, dear)
    assert np.allclose(second.traded, first.account.traded, atol=1e-6)
    assert (second.equity <= first.account.equity + 1e-6).all()


def assert_no_earlier_row_changes(prices, signals, chosen, cut):
    """From the close and volume of session ``cut`` on all is another: no decision, fill or mark before it moves.

    The open of ``cut`` stays where orders fill at it: those fills are earlier than its close.
    """
    at_open = chosen["execution"] == "next_open"
    open_, close, volume = prices.open.copy(), prices.close.copy(), prices.volume.copy()
    open_[cut + at_open :] *= 1.31
    close[cut:] *= 0.77
    volume[cut:] *= 3.0
    options = BacktestOptions(**{**chosen, "delisting_loss": None})
    a, b = (run_backtest(signals, p, options) for p in (prices, table(open_, close, volume)))
    assert np.array_equal(a.weights[:cut], b.weights[:cut], equal_nan=True)
    for names, rows in ((("equity", "held"), cut), (("cash", "traded", "slippage", "commission"), cut + at_open)):
        for name in names:
            assert np.array_equal(getattr(a.account, name)[:rows], getattr(b.account, name)[:rows]), name


@common
@given(markets(), choices, st.data())
def test_a_later_price_changes_no_earlier_fill(market, chosen, data):
    assert_no_earlier_row_changes(*market, chosen, data.draw(st.integers(2, len(market[0].sessions) - 1)))


@pytest.mark.parametrize("sizing", ["inverse_volatility", "volatility_target", "kelly"])
@common
@given(markets(), choices, looking_back, st.data())
def test_what_looks_back_knows_no_later_price(sizing, market, chosen, more, data):
    cut = data.draw(st.integers(2, len(market[0].sessions) - 1))
    assert_no_earlier_row_changes(*market, {**chosen, **more, "sizing_strategy": sizing}, cut)


@common
@given(markets(), choices, st.randoms(use_true_random=False))
def test_the_names_of_the_tickers_change_nothing(market, chosen, random):
    prices, signals = market
    order = list(range(len(prices.tickers)))
    random.shuffle(order)
    new = {prices.tickers[old]: prices.tickers[place] for place, old in enumerate(order)}
    moved = [Signal(new[s.ticker], s.as_of_date, s.action) for s in signals]
    options = BacktestOptions(**chosen)
    a = run_backtest(signals, prices, options).account.equity
    b = run_backtest(moved, table(prices.open[:, order], prices.close[:, order]), options).account.equity
    assert np.allclose(a, b, rtol=1e-9)


@common
@given(markets(), choices, st.floats(0.2, 30.0), st.data())
def test_splits_and_dividends_change_nothing(market, chosen, factor, data):
    """The same adjusted prices over raw ones that were split on a day."""
    prices, signals = market
    chosen = {**chosen, "fractional": True}
    cut = data.draw(st.integers(0, len(prices.sessions) - 1))
    raw = np.where(np.arange(len(prices.sessions))[:, None] < cut, factor, 1.0)
    split = table(prices.open * raw, prices.close * raw, volume=prices.volume / raw, adjusted=prices.close)
    options = BacktestOptions(**chosen)
    a, b = (run_backtest(signals, p, options).account.equity for p in (prices, split))
    assert np.allclose(a, b, rtol=1e-9)


@common
@given(markets(), choices)
def test_twice_the_capital_is_twice_of_everything(market, chosen):
    prices, signals = market
    chosen = {**chosen, "fractional": True, "costs": CostOptions(borrow_fee=0.1)}
    a, b = (run_backtest(signals, prices, BacktestOptions(**chosen, capital=c)).account for c in (1e5, 2e5))
    for name in ("equity", "cash", "traded", "slippage", "commission", "held", "income"):
        assert np.allclose(2 * getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-6), name


@common
@given(markets(gaps=False))
def test_excess_over_the_universe_is_zero_for_the_universe(market):
    prices, _ = market
    result = run_backtest(everywhere(prices, Action.BUY), prices, BacktestOptions(**FREE))
    assert np.abs(exposure_matched_excess(result)).max() < 1e-13
