"""Three days by hand."""

from __future__ import annotations

import pytest

from finseek.backtest import BacktestOptions, run_backtest


@pytest.fixture
def result(table, signal):
    prices = table(
        open_=[[10.0, 20.0], [10.0, 20.0], [10.0, 20.9], [9.45, 21.0]],
        close=[[10.0, 20.0], [11.0, 19.0], [10.5, 22.0], [9.45, 21.0]],
    )
    signals = [
        signal("A", 0, "BUY"),
        signal("B", 0, "BUY"),
        signal("A", 1, "SELL"),
        signal("B", 1, "HOLD"),
        signal("A", 2, "BUY"),
    ]
    options = BacktestOptions(
        capital=1000.0, transaction_cost=0.01, slippage=0.02, sizing_strategy="fixed_pct", fixed_pct=0.4, shorts=True
    )
    return run_backtest(signals, prices, options)


def test_three_days_to_the_cent(result):
    """Capital 1000, 40 % of equity a name, commission 1 %, slippage 2 %, shorts on, HOLD flat.

    Day 0, close: A BUY, B BUY. Equity 1000.
    Day 1, open: E = 1000. A and B: delta 400 each, slippage 400 · 2 % = 8, commission 408 · 1 % = 4.08, so 412.08
      each. Cash 1000 - 824.16 = 175.84. Close: A 400 · 11/10 = 440, B 400 · 19/20 = 380.
      Equity 175.84 + 820 = 995.84. A SELL, B HOLD.
    Day 2, open: A 440 · 10/11 = 400, B 380 · 20.9/19 = 418, E = 175.84 + 818 = 993.84.
      A: target -0.4 · 993.84 = -397.536, delta -797.536, slippage 15.95072, commission 781.58528 · 1 % = 7.8158528.
      B: target 0, delta -418, slippage 8.36, commission 409.64 · 1 % = 4.0964.
      Cash 175.84 + 797.536 - 23.7665728 + 418 - 12.4564 = 1355.1530272. Close: A -397.536 · 10.5/10 = -417.4128.
      Equity 937.7402272. A BUY; B has no signal: its (empty) position stays.
    Day 3, open: A -417.4128 · 9.45/10.5 = -375.67152, E = 979.4815072. A: target 391.79260288,
      delta 767.46412288, slippage 15.3492824576, commission 782.8134053376 · 1 % = 7.828134053376.
      Cash 1355.1530272 - 767.46412288 - 23.177416510976 = 564.511487809024. Close = open.
      Equity 956.304090689024.
    """
    equity = result.equity["equity"].to_list()
    assert [round(value, 2) for value in equity] == [1000.00, 995.84, 937.74, 956.30]
    assert equity == pytest.approx([1000.0, 995.84, 937.7402272, 956.304090689024], abs=1e-10)
    assert result.equity["cash"].to_list() == pytest.approx([1000.0, 175.84, 1355.1530272, 564.511487809024], abs=1e-10)
    assert result.equity["equity_at_open"].to_list() == pytest.approx([1000.0, 1000.0, 993.84, 979.4815072], abs=1e-10)
    assert result.equity["slippage"].to_list() == pytest.approx([0.0, 16.0, 24.31072, 15.3492824576], abs=1e-10)
    assert result.equity["commission"].to_list() == pytest.approx([0.0, 8.16, 11.9122528, 7.828134053376], abs=1e-10)


def test_round_trips_of_the_three_days(result):
    """A long (day 1 to 2), B long (day 1 to 2), A short (day 2 to 3), A long (open).

    A long: +40 by day, -40 overnight, costs 12.08 + 23.7665728 · 400/797.536 = 24.0.
    B long: -20 + 38 = 18, costs 12.08 + 12.4564 = 24.5364.
    A short: -19.8768 by day 2, +41.74128 overnight, costs 23.7665728 · 397.536/797.536 + the closing part of day 3,
    23.177416510976 · 375.67152/767.46412288.
    """
    rows = result.trades.to_dicts()
    assert [(r["ticker"], r["side"], r["exit_date"] is None) for r in rows] == [
        ("A", "long", False),
        ("B", "long", False),
        ("A", "short", False),
        ("A", "long", True),
    ]
    assert [r["gross_profit"] for r in rows] == pytest.approx([0.0, 18.0, 21.86448, 0.0], abs=1e-10)
    costs = [
        12.08 + 23.7665728 * 400 / 797.536,
        24.5364,
        23.7665728 * 397.536 / 797.536 + 23.177416510976 * 375.67152 / 767.46412288,
        23.177416510976 * 391.79260288 / 767.46412288,
    ]
    assert [r["costs"] for r in rows] == pytest.approx(costs, abs=1e-10)
    assert result.trades["profit"].sum() == pytest.approx(956.304090689024 - 1000, abs=1e-9)
