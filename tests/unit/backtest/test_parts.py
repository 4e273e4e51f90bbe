"""Options, benchmarks, sweep, corporate actions and the tables of performance."""

from __future__ import annotations

import json
import sys
from datetime import date

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from finseek.backtest import BacktestOptions, Signal, benchmarks, performance, run_backtest, sweep, write_sweep
from finseek.backtest.corporate import read_actions
from finseek.backtest.intervals import draw_sessions
from finseek.backtest.options import LimitOptions
from finseek.backtest.positions import staggered, thin_out
from finseek.core.actions import ACTIONS, Action
from finseek.core.errors import ConfigError, InputError

WORDS = [str(action) for action in ACTIONS]
QUIET = BacktestOptions(nulls=0)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"action_map": {"BUY": 1}}, "must name all five actions"),
        ({"action_map": {**{a.value: a.direction for a in ACTIONS}, "HOLD": 1}}, "HOLD must be 0"),
        ({"action_map": {**{a.value: a.direction for a in ACTIONS}, "STRONG_BUY": 2}}, "directions are -1, 0 and 1"),
        ({"dividends": "cash"}, "need each other"),
        ({"slippage": 0.6, "costs": {"half_spread": 0.5}}, "together must be below 1"),
        ({"limits": {"max_sector": 0.2}}, "needs backtest.limits.sectors"),
        ({"holding_period": 5, "rebalance": "weekly"}, "renews a book daily"),
        ({"sizing_strategy": "equal_wieght"}, "equal_weight"),
        ({"slipage": 0.1}, "Extra inputs"),
    ],
)
def test_options_refuse_combinations(bad, says):
    with pytest.raises(ValidationError, match=says):
        BacktestOptions.model_validate_json(json.dumps(bad))


def test_options_survive_json():
    options = BacktestOptions(actions_file="actions.csv", dividends="cash", limits=LimitOptions(max_gross=0.5))
    assert BacktestOptions.model_validate_json(options.model_dump_json()) == options


def test_momentum_holds_the_best_half_and_reversal_the_worst(table):
    close = np.column_stack([np.linspace(100, 100 + slope, 12) for slope in (40, 30, 20, 10, 0)])
    prices = table(close, close)
    best = benchmarks.momentum(prices, 5, 4, 3)
    worst = benchmarks.reversal(prices, 5, 4, 3)
    assert best.tolist() == [[0.5, 0.5, 0, 0, 0]] * 4
    assert worst.tolist() == [[0, 0, 0, 0.5, 0.5]] * 4
    assert not benchmarks.momentum(prices, 0, 3, 3).any()


def test_benchmarks_know_no_later_price(walk, table):
    prices = walk(30, 4)
    close = prices.close.copy()
    close[20:] *= 2
    later = table(prices.open, close)
    assert np.array_equal(benchmarks.momentum(prices, 5, 15, 4), benchmarks.momentum(later, 5, 15, 4))


def test_teacher_is_traded_over_the_window_of_the_signals(walk, everywhere, signal):
    prices = walk(30, 3)
    teacher = everywhere(prices, WORDS)
    ours = [s for s in everywhere(prices, "BUY") if s.as_of_date >= date(2024, 1, 11)]
    result = run_backtest(ours, prices, QUIET, teacher=teacher)
    late = [s for s in teacher if s.as_of_date >= date(2024, 1, 11)]
    alone = run_backtest(late, prices, QUIET)
    assert result.metrics["benchmarks"]["teacher"]["total_return"] == alone.metrics["performance"]["total_return"]
    assert set(result.metrics["benchmarks"]) >= {"buy_and_hold", "all_buy", "momentum", "reversal", "cash_only"}
    assert result.equity["teacher"].to_list() == alone.equity["equity"].to_list()


def test_index_is_bought_and_held(walk, everywhere):
    from dataclasses import replace

    prices, other = walk(20, 2), walk(20, 1, seed=9)
    result = run_backtest(everywhere(prices, WORDS), replace(prices, benchmark=other), BacktestOptions(nulls=0))
    expected = 100_000 * other.close[-1, 0] / other.open[1, 0]
    assert result.equity["index"][-1] == pytest.approx(expected, rel=2e-3)
    assert result.metrics["relative"]["benchmark"] == "index"


def test_index_fills_where_the_strategy_does(walk, everywhere):
    from dataclasses import replace

    prices, other = walk(20, 2), walk(20, 1, seed=9)
    options = BacktestOptions(execution="next_close", transaction_cost=0, slippage=0, nulls=0)
    result = run_backtest(everywhere(prices, WORDS), replace(prices, benchmark=other), options)
    assert result.equity["index"][-1] == pytest.approx(100_000 * other.close[-1, 0] / other.close[1, 0], rel=2e-3)


def test_staggered_books():
    target = np.array([[1.0], [0.0], [3.0], [0.0]])
    present = np.array([[True], [True], [True], [False]])
    assert staggered(target, present, None, 2).ravel().tolist() == [0.5, 0.5, 1.5, 1.5]
    repeated = np.array([[False], [True], [False], [False]])
    assert staggered(target, present, repeated, 2).ravel().tolist() == [0.5, 1.0, 2.0, 1.5]


def test_weekly_orders_are_those_of_the_first_session_of_a_week():
    days = np.arange("2024-01-03", "2024-01-12", dtype="datetime64[D]")
    days = days[np.is_busday(days)]
    kept = thin_out(np.ones((len(days), 1)), days, BacktestOptions(rebalance="weekly"))
    assert [str(d) for d in days[~np.isnan(kept[:, 0])]] == ["2024-01-03", "2024-01-08"]


def test_orders_on_change_alone():
    weights = np.array([[0.0], [0.2], [0.2], [np.nan], [0.2], [0.0]])
    kept = thin_out(weights, np.arange(6).astype("datetime64[D]"), BacktestOptions(rebalance="on_change"))
    assert np.flatnonzero(~np.isnan(kept[:, 0])).tolist() == [1, 5]


def test_months_and_years_compound_to_the_total():
    dates = np.arange("2023-11-20", "2024-02-10", dtype="datetime64[D]")
    equity = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, len(dates))))
    for unit, count in (("M", 4), ("Y", 2)):
        found = performance.period_returns(dates, equity, unit)
        assert len(found) == count
        assert np.prod([1 + r for r in found.values()]) == pytest.approx(equity[-1] / equity[0])


def test_a_window_that_starts_at_the_end_of_a_month():
    dates = np.array(["2024-01-31", "2024-02-01", "2024-02-02"], dtype="datetime64[D]")
    assert performance.period_returns(dates, np.array([100.0, 101.0, 102.0]), "M") == {"2024-02": pytest.approx(0.02)}


def test_the_worst_drawdowns():
    dates = np.arange("2024-01-01", "2024-01-09", dtype="datetime64[D]")
    equity = np.array([100.0, 90.0, 100.0, 120.0, 60.0, 90.0, 120.0, 108.0])
    first, second, third = performance.worst_drawdowns(dates, equity)
    assert (first["depth"], first["peak"], first["valley"], first["recovery"], first["sessions"]) == (
        -0.5,
        "2024-01-04",
        "2024-01-05",
        "2024-01-07",
        3,
    )
    assert sorted((second["sessions"], third["sessions"])) == [1, 2]
    assert [d["recovery"] is None for d in (second, third)].count(True) == 1
    assert len(performance.worst_drawdowns(dates, equity, 1)) == 1
    assert performance.worst_drawdowns(dates, np.arange(8) + 1.0) == []


def test_capacity_scales_with_volume_and_not_with_capital(walk, everywhere):
    prices = walk(30, 3)
    signals = everywhere(prices, WORDS)
    one = run_backtest(signals, prices, QUIET).metrics["capacity"]
    rich = run_backtest(signals, prices, BacktestOptions(nulls=0, capital=1e6)).metrics["capacity"]
    busy = run_backtest(signals, walk(30, 3, volume=np.full((30, 3), 2e6)), QUIET).metrics["capacity"]
    assert rich == pytest.approx(one)
    assert busy == pytest.approx(2 * one)


def test_zero_variance_is_null():
    assert performance.sharpe_ratio(np.zeros(10)) is None
    assert performance.sharpe_ratio(np.full(10, 0.001)) is None
    assert performance.sharpe_ratio(np.array([0.01])) is None
    assert performance.sortino_ratio(np.array([0.01, 0.02])) is None
    assert performance.calmar_ratio(np.array([1.0, 1.1])) is None


def test_smallest_detectable_sharpe_of_77_sessions():
    assert performance.sharpe_standard_error(77) == pytest.approx(1.81, abs=0.01)
    assert performance.smallest_detectable_sharpe(77) == pytest.approx(3.546, abs=0.01)


def test_sweep_makes_every_combination_and_a_heat_map(walk, everywhere, tmp_path):
    prices = walk(30, 3)
    found = sweep(
        everywhere(prices, WORDS), prices, QUIET, {"slippage": [0.0, 0.01], "limits.max_gross": [0.2, 0.5, None]}
    )
    assert found.returns.shape == (29, 6)
    assert found.points[1] == {"slippage": 0.0, "limits.max_gross": 0.5}
    heat = found.heat_map("slippage", "limits.max_gross", "total_return")
    assert heat.shape == (3, 3)
    assert found.options[0].limits.max_gross == 0.2
    write_sweep(found, tmp_path)
    assert pl.read_csv(tmp_path / "sweep.csv").height == 6
    returns = pl.read_csv(tmp_path / "returns.csv")
    assert returns.shape == (29, 7)
    assert np.array_equal(returns.select(pl.exclude("date")).to_numpy(), found.returns)
    with pytest.raises(ConfigError, match="no column of the sweep"):
        found.heat_map("slippage", "limits.max_net")


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ({"slipage": [0.1]}, "no key 'slipage'"),
        ({"limits.max_gros": [0.1]}, "no key 'limits.max_gros'"),
        ({"slippage": []}, "no list of values"),
        ({"hold": "keep"}, "no list of values"),
        ({"slippage": [2.0]}, "less than 1"),
        ({"holding_period": [2], "rebalance": ["weekly"]}, "renews a book daily"),
    ],
)
def test_sweep_refuses(walk, everywhere, grid, says):
    prices = walk(10, 2)
    with pytest.raises(ConfigError, match=says) as error:
        sweep(everywhere(prices, "BUY"), prices, QUIET, grid)
    assert "\n" not in str(error.value)


def test_dividend_in_cash_is_paid_to_who_held_the_day_before(table, signal, tmp_path):
    """10 000 in shares at 10, a dividend of 0.50 a share: 500 in cash."""
    flat = np.full((5, 1), 10.0)
    prices = table(flat, flat)
    path = tmp_path / "actions.csv"
    path.write_text("ticker,date,dividend,split\nA,2024-01-03,0.5,\nZ,2024-01-03,9,\n")
    options = BacktestOptions(
        transaction_cost=0.0,
        slippage=0.0,
        sizing_strategy="fixed_pct",
        fixed_pct=0.1,
        dividends="cash",
        actions_file=path,
        rebalance="on_change",
        nulls=0,
    )
    result = run_backtest([signal("A", k, "BUY") for k in range(4)], prices, options)
    assert result.account.income[:, 0].tolist() == [0.0, 0.0, 500.0, 0.0, 0.0]
    assert result.account.equity[-1] == 100_500.0
    late = run_backtest([signal("A", 2, "BUY")], prices, options)
    assert not late.account.income.any()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ticker,date,dividend\nA,2024-01-02,1\n", "lacks split"),
        ("ticker,date,dividend,split\nA,2024-01-02,-1,\n", "want dividend >= 0"),
        ("ticker,date,dividend,split\nA,2024-01-02,,0\n", "split > 0"),
        ("ticker,date,dividend,split\nA,2024-01-02,x,\n", "line 2"),
        ("ticker,date,dividend,split\nA,2024-1-2,1,\n", "not a date"),
        ("ticker,date,dividend,split\nA,2024-01-02,1,\nA,2024-01-02,1,\n", "second line"),
    ],
)
def test_bad_actions_file(walk, tmp_path, text, says):
    path = tmp_path / "actions.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        read_actions(path, walk(10, 2))


def test_conviction_weighs_the_strong_actions_more(walk, signal):
    prices = walk(6, 5)
    signals = [signal(t, 0, word) for t, word in zip("ABCDE", WORDS, strict=True)]
    options = BacktestOptions(sizing_strategy="conviction", shorts=True, strong_conviction=3.0, nulls=0)
    assert run_backtest(signals, prices, options).weights[0] == pytest.approx([-0.6, -0.2, 0.0, 0.2, 0.6])


def test_probability_sizing_needs_probabilities(walk, everywhere):
    prices = walk(10, 2)
    with pytest.raises(InputError, match="needs the five probabilities"):
        run_backtest(everywhere(prices, "BUY"), prices, BacktestOptions(sizing_strategy="probability_weighted"))


def test_the_ledger_in_polars_has_no_nan(walk, everywhere):
    prices = walk(20, 2)
    result = run_backtest(everywhere(prices, WORDS), prices, QUIET)
    lines = result.ledger()
    assert not lines.select(pl.col(pl.Float64).is_nan().any()).to_series().any()
    assert lines.filter(pl.col("ticker").is_null()).height == 20


def test_unscored_rows_are_counted(walk, signal):
    prices = walk(10, 1)
    late = Signal("A", date(2024, 1, 10), Action.BUY)
    for last in (late, Signal("A", date(2024, 1, 10))):
        counts = run_backtest([signal("A", 0, "BUY"), signal("A", 1), last], prices, QUIET).metrics["signals"]
        assert (counts["given"], counts["traded"], counts["no_signal"], counts["unexecuted"]) == (3, 1, 1, 1)


def test_intervals_hold_their_value_and_are_paired(walk, everywhere):
    prices = walk(60, 3)
    metrics = run_backtest(everywhere(prices, WORDS), prices, QUIET).metrics
    found = metrics["intervals"]
    assert found["sharpe"]["value"] == pytest.approx(metrics["performance"]["sharpe"], rel=1e-9)
    assert metrics["excess"]["annual"]["value"] == pytest.approx(252 * metrics["excess"]["mean_daily"])
    for one in (*found.values(), metrics["excess"]["annual"]):
        assert one["low"] < one["value"] < one["high"]
    ours = run_backtest(everywhere(prices, "BUY"), prices, QUIET).metrics["benchmarks"]["all_buy"]
    assert ours["return_difference_annual"] == {"value": 0.0, "low": None, "high": None, "p_value": None}


def test_an_account_that_did_nothing_has_no_sharpe_interval(walk, everywhere):
    prices = walk(20, 2)
    found = run_backtest(everywhere(prices, "HOLD"), prices, QUIET).metrics["intervals"]
    assert found["sharpe"] == {"value": None, "low": None, "high": None, "p_value": None}
    assert found["return_annual"] == {"value": 0.0, "low": None, "high": None, "p_value": None}


def test_sweep_on_the_compiled_kernel_gives_the_same(walk, everywhere, monkeypatch):
    """Points that the plain kernel cannot do stay with the other."""
    prices = walk(30, 3)
    grid = {
        "slippage": [0.0, 0.01],
        "hold": ["flat", "keep"],
        "limits.max_gross": [0.2, None],
        "allow_leverage": [True],
    }
    slow = sweep(everywhere(prices, WORDS), prices, QUIET, grid)
    monkeypatch.setattr(sys.modules["finseek.backtest.sweeps"], "_WORTH_COMPILING", 0)
    monkeypatch.setattr(sys.modules["finseek.backtest.sweeps"], "_BATCH_CELLS", 1)
    fast = sweep(everywhere(prices, WORDS), prices, QUIET, grid)
    assert np.allclose(fast.returns, slow.returns, rtol=0, atol=1e-13)
    assert not np.array_equal(fast.returns, slow.returns)


def test_blocks_longer_than_the_account_are_cut_to_it():
    """They would draw it as it is, and an interval would have hardly any width."""
    longest, beyond = (draw_sessions(20, QUIET.model_copy(update={"mean_block": block})) for block in (20.0, 1000.0))
    np.testing.assert_array_equal(beyond, longest)
    assert (beyond != 1).any(axis=1).mean() > 0.5
