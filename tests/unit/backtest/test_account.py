"""The account: identities, missing prices, cash, and what it must not know."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from finseek.backtest import (
    BacktestOptions,
    Signal,
    exposure_matched_excess,
    ledger,
    run_backtest,
    write_result,
)
from finseek.core.actions import ACTIONS

WORDS = [str(action) for action in ACTIONS]
FREE = {"transaction_cost": 0.0, "slippage": 0.0, "nulls": 0}
LEVERED = {"shorts": True, "allow_leverage": True}


@pytest.mark.parametrize("bad", [{"capital": 0.0}, {"capital": -1.0}, {"transaction_cost": 1.0}, {"slippage": -0.1}])
def test_options_refuse_what_makes_no_sense(bad):
    with pytest.raises(ValidationError):
        BacktestOptions(**bad)


@pytest.mark.parametrize("shorts", [False, True])
@pytest.mark.parametrize("hold", ["flat", "keep"])
def test_equity_is_cash_and_positions_and_every_cost_is_accounted_for(walk, everywhere, shorts, hold):
    prices = walk(60, 5)
    result = run_backtest(everywhere(prices, WORDS, 55), prices, BacktestOptions(shorts=shorts, hold=hold))
    account = result.account
    assert np.allclose(account.equity, account.cash + account.held.sum(axis=1), rtol=0, atol=1e-9)
    assert np.allclose(np.diff(account.equity), ledger.name_profit(account)[1:].sum(axis=1), atol=1e-8)
    spent = account.traded + account.slippage + account.commission
    assert np.allclose(account.cash, 100_000 - np.cumsum(spent.sum(axis=1)), atol=1e-8)
    assert result.trades["profit"].sum() == pytest.approx(account.equity[-1] - 100_000, abs=1e-7)
    assert result.trades["costs"].sum() == pytest.approx(result.metrics["performance"]["costs_paid"], abs=1e-7)


def test_cash_never_goes_below_zero_without_leverage(walk, everywhere):
    prices = walk(60, 4)
    signals = everywhere(prices, "BUY")
    bound = run_backtest(signals, prices, BacktestOptions(transaction_cost=0.01))
    assert bound.account.cash.min() > -1e-9
    assert (bound.rejected["reason"] == "cash").all()
    assert bound.rejected.height > 0
    assert (
        run_backtest(signals, prices, BacktestOptions(transaction_cost=0.01, allow_leverage=True)).account.cash.min()
        < 0
    )


def test_an_order_without_a_price_is_rejected_and_not_carried(table, signal):
    nan = np.nan
    prices = table(
        open_=[[10.0], [nan], [12.0], [13.0], [nan], [15.0]], close=[[10.0], [nan], [12.5], [13.5], [nan], [15.0]]
    )
    signals = [signal("A", 0, "BUY"), signal("A", 2, "BUY"), signal("A", 3, "SELL")]
    result = run_backtest(signals, prices, BacktestOptions(transaction_cost=0.0, slippage=0.0))
    account = result.account
    assert result.rejected["reason"].to_list() == ["no price", "no price"]
    assert account.equity[:3].tolist() == [100_000.0] * 3
    assert account.held[3, 0] == pytest.approx(100_000 * 13.5 / 13)
    assert account.held[4, 0] == account.held[3, 0]


def test_a_later_price_changes_no_earlier_row(walk, everywhere, table):
    prices = walk(40, 3)
    signals = everywhere(prices, WORDS)
    before = run_backtest(signals, prices).account
    open_, close = prices.open.copy(), prices.close.copy()
    open_[21:] *= 1.7
    close[20:] *= 0.6
    after = run_backtest(signals, table(open_, close)).account
    assert np.array_equal(before.traded[:21], after.traded[:21])
    assert np.array_equal(before.equity[:20], after.equity[:20])
    assert not np.array_equal(before.equity, after.equity)


def test_splits_and_dividends_change_nothing(walk, everywhere, table):
    """The same adjusted prices over other raw ones."""
    prices = walk(40, 3)
    signals = everywhere(prices, WORDS)
    factor = np.where(np.arange(40)[:, None] < 17, 20.0, 1.0) * np.array([1.0, 2.0, 1.0])
    split = table(prices.open * factor, prices.close * factor, adjusted=prices.close)
    a, b = (run_backtest(signals, p).account.equity for p in (prices, split))
    assert np.allclose(a, b, rtol=1e-12)


def test_order_of_tickers_and_capital_scale(walk, everywhere, table):
    prices = walk(40, 3)
    signals = everywhere(prices, WORDS)
    base = run_backtest(signals, prices).account.equity
    renamed = dict(zip("ABC", "CAB", strict=True))
    order = [1, 2, 0]
    swapped = table(prices.open[:, order], prices.close[:, order])
    moved = [Signal(renamed[s.ticker], s.as_of_date, s.action) for s in signals]
    assert np.allclose(run_backtest(moved, swapped).account.equity, base, rtol=1e-13)
    assert np.allclose(
        run_backtest(signals, prices, BacktestOptions(capital=200_000.0)).account.equity, 2 * base, rtol=1e-13
    )


def test_all_sell_is_the_negative_of_all_buy_at_the_open(walk, everywhere):
    prices = walk(80, 4)
    free = BacktestOptions(transaction_cost=0.0, slippage=0.0, **LEVERED)
    buy, sell = (run_backtest(everywhere(prices, a), prices, free).account.equity_at_open for a in ("BUY", "SELL"))
    assert np.abs(buy[2:] / buy[1:-1] - 1 + sell[2:] / sell[1:-1] - 1).max() < 1e-14


def test_costs_are_paid_on_entry_and_exit_at_every_fill(table, signal):
    flat = np.full((4, 1), 10.0)
    prices = table(flat, flat)
    signals = [signal("A", 0, "BUY"), signal("A", 1, "SELL")]
    options = BacktestOptions(transaction_cost=0.01, slippage=0.02, sizing_strategy="fixed_pct", fixed_pct=0.5)
    result = run_backtest(signals, prices, options)
    entry = 50_000 * 0.02 + 51_000 * 0.01
    exit_ = 50_000 * 0.02 + 49_000 * 0.01
    assert result.metrics["performance"]["costs_paid"] == pytest.approx(entry + exit_)
    assert result.account.equity[-1] == pytest.approx(100_000 - entry - exit_)
    assert result.trades["costs"].to_list() == pytest.approx([entry + exit_])


def test_excess_of_equal_weights_without_costs_is_zero(walk, everywhere):
    prices = walk(50, 4)
    free = BacktestOptions(transaction_cost=0.0, slippage=0.0)
    assert np.abs(exposure_matched_excess(run_backtest(everywhere(prices, "BUY"), prices, free))).max() < 1e-14
    half = free.model_copy(update={"sizing_strategy": "fixed_pct", "fixed_pct": 0.125})
    assert np.abs(exposure_matched_excess(run_backtest(everywhere(prices, "BUY"), prices, half))).max() < 1e-14


def test_excess_is_the_return_itself_without_net_exposure(walk, everywhere):
    prices = walk(50, 4)
    result = run_backtest(everywhere(prices, "HOLD"), prices)
    assert not exposure_matched_excess(result).any()


def test_files(walk, everywhere, signal, tmp_path):
    prices = walk(30, 3)
    signals = [*everywhere(prices, "BUY"), signal("C", 29, "SELL")]
    result = run_backtest(signals, prices, BacktestOptions(nulls=0))
    write_result(result, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(json.dumps(result.metrics))
    tables = {path.stem: pl.read_csv(path) for path in tmp_path.glob("*.csv")}
    assert set(tables) == {"equity", "trades", "ledger", "fills", "rejected", "unexecuted"}
    assert tables["equity"].columns[:2] == ["date", "equity"]
    assert tables["equity"]["equity"].to_list() == result.account.equity.tolist()
    assert tables["unexecuted"].rows() == [("C", "2024-01-30", "SELL", None)]
    assert set(tables["rejected"]["reason"]) == {"cash"}
    assert tables["fills"]["commission"].sum() == pytest.approx(result.metrics["performance"]["commission_paid"])
    closing = tables["ledger"].group_by("date").agg(pl.col("closing").sum()).sort("date")["closing"]
    assert closing.to_numpy() == pytest.approx(result.account.equity)


def test_metrics_of_nothing_are_null(walk, everywhere, tmp_path):
    prices = walk(4, 2)
    result = run_backtest(everywhere(prices, "HOLD", 1), prices)
    write_result(result, tmp_path)
    found = result.metrics["performance"]
    assert [found[name] for name in ("sharpe", "sortino", "calmar", "hit_rate_days", "volatility")] == [None] * 5


def test_a_ruined_account_closes_its_position_and_stays(table, signal, tmp_path):
    """Five times the equity in a name that falls by 30 %: equity -50 % of the capital, and nothing more happens."""
    prices = table(np.array([[10.0], [10.0], [7.0], [8.0], [4.0]]), np.array([[10.0], [7.0], [7.0], [8.0], [4.0]]))
    signals = [signal("A", k, weight=5.0) for k in range(4)]
    result = run_backtest(signals, prices, BacktestOptions(**FREE, allow_leverage=True))
    assert result.account.equity.tolist() == pytest.approx([100_000.0] + [-50_000.0] * 4)
    assert result.account.held[2:].tolist() == [[0.0]] * 3
    write_result(result, tmp_path)
    assert result.metrics["performance"]["annual_return"] is None
    assert result.metrics["performance"]["total_return"] == pytest.approx(-1.5)
