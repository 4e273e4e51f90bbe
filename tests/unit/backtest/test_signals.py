"""Signals: files, the grid, what is refused, and what a missing signal means."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from finseek.backtest import BacktestOptions, Signal, read_signals, run_backtest
from finseek.backtest.positions import directions, place, signal_age
from finseek.backtest.signals import signal_grid
from finseek.core.actions import Action
from finseek.core.errors import InputError


def one_line(error):
    return "\n" not in str(error.value)


def test_csv_and_parquet_hold_the_same_signals(tmp_path):
    csv = tmp_path / "signals.csv"
    csv.write_text("ticker,as_of_date,action\nA,2024-01-02,strong buy\nA,2024-01-03,\nB,2024-01-02,HOLD\n")
    signals = read_signals(csv)
    assert [s.action for s in signals] == [Action.STRONG_BUY, None, Action.HOLD]
    parquet = tmp_path / "signals.parquet"
    pl.read_csv(csv, try_parse_dates=True).write_parquet(parquet)
    assert read_signals(parquet) == signals


def test_weights(tmp_path):
    csv = tmp_path / "weights.csv"
    csv.write_text("ticker,as_of_date,weight\nA,2024-01-02,0.25\nB,2024-01-02,\n")
    assert [s.weight for s in read_signals(csv)] == [0.25, None]


def test_eval_results_are_taken_unchanged(tmp_path):
    """A row that was not scored is no signal, whatever its pred_action says."""
    csv = tmp_path / "eval_results.csv"
    names = "p_strong_sell,p_sell,p_hold,p_buy,p_strong_buy"
    csv.write_text(
        f"ticker,as_of_date,gt_action,pred_action,status,{names},completion,realized_return\n"
        'A,2024-01-02,BUY,SELL,scored,0.1,0.5,0.2,0.1,0.1,"<action>SELL</action>, so",0.01\n'
        "A,2024-01-03,BUY,HOLD,tie,,,,,,nonsense,\n"
    )
    first, second = read_signals(csv)
    assert (first.action, first.probabilities) == (Action.SELL, (0.1, 0.5, 0.2, 0.1, 0.1))
    assert (second.action, second.weight) == (None, None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("ticker,as_of_date,action\n", "only a header"),
        ("ticker,date,action\nA,2024-01-02,BUY\n", "need the columns"),
        ("ticker,as_of_date,action,weight\nA,2024-01-02,BUY,1\n", "one of action, weight"),
        ("ticker,as_of_date,pred_action\nA,2024-01-02,BUY\n", "with status"),
        ("ticker,as_of_date,action\nA,02/01/2024,BUY\n", "line 2: as_of_date '02/01/2024'"),
        ("ticker,as_of_date,action\nA,2024-01-02,BUY\nA,2024-01-03,buy it\n", "line 3: action 'buy it'"),
        (
            "ticker,as_of_date,weight\nA,2024-01-02,5%\n",
            "line 2: '5%' is no number for weight: give a fraction of equity",
        ),
        ("ticker,as_of_date,action\nA,2024-01-02,BUY\nA,2024-01-03\n", "line 3: 2 cells where the header has 3"),
        ("ticker;as_of_date;action\nA;2024-01-02;BUY\n", "separated by semicolons: save it with commas"),
        ("ticker,as_of_date,action\n,2024-01-02,BUY\n", "line 2: the ticker is empty"),
        ("ticker,as_of_date,action,action\nA,2024-01-02,BUY,SELL\n", "several columns 'action': keep one"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, content, says):
    path = tmp_path / "signals.csv"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        read_signals(path)
    assert says in str(error.value)
    assert one_line(error)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"action": [1]}, "line 2: action '1' is none of"),
        ({"as_of_date": [datetime(2024, 1, 1, 23, tzinfo=UTC)]}, "line 2: as_of_date '2024-01-01 23:00:00"),
    ],
)
def test_a_parquet_of_other_types_is_one_clear_line(tmp_path, change, says):
    """A midnight of Berlin that was stored in UTC is no signal of the session before."""
    path = tmp_path / "signals.parquet"
    pl.DataFrame({"ticker": ["A"], "as_of_date": [date(2024, 1, 2)], "action": ["BUY"]} | change).write_parquet(path)
    with pytest.raises(InputError) as error:
        read_signals(path)
    assert says in str(error.value)
    assert one_line(error)


def test_a_file_that_is_missing_or_of_another_kind(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_signals(tmp_path / "none.csv")
    other = tmp_path / "signals.xlsx"
    other.write_text("x")
    with pytest.raises(InputError, match=r"ends in none of \.csv"):
        read_signals(other)
    broken = tmp_path / "signals.parquet"
    broken.write_text("not parquet")
    with pytest.raises(InputError, match="cannot be read"):
        read_signals(broken)


def test_bad_signals_are_one_clear_line(walk, signal):
    prices = walk(6, 2)
    cases = [
        ([], "there is no signal"),
        ([signal("AA", 0, "BUY")], "no ticker 'AA': did you mean A?"),
        ([signal("a", 0, "BUY")], "no ticker 'a': did you mean A?"),
        ([signal("A", 0, "BUY"), signal("A", 0, "BUY")], "appears twice"),
        ([signal("A", 2, "BUY"), signal("A", 1, "BUY")], "sort the signals"),
        ([signal("A", 0, weight=float("nan"))], "not a finite number"),
        ([signal("A", 0, weight=float("inf"))], "not a finite number"),
        ([signal("A", -3, "BUY"), signal("A", 1, "BUY")], "no session of the price table"),
        ([signal("A", 5, "BUY")], "no signal can be executed"),
        ([signal("A", 0, "BUY"), signal("B", 0, weight=0.1)], "give all of them the same way"),
        ([signal("A", 0, "BUY", weight=0.1)], "both an action and a weight"),
        ([Signal("A", signal("A", 0).as_of_date, "BUY")], "use core.actions.Action"),
        ([Signal("A", signal("A", 0).as_of_date, Action.BUY, probabilities=(0.5, 0.5, 0.5, 0, 0))], "five of sum 1"),
        ([Signal("A", signal("A", 0).as_of_date, Action.BUY, probabilities=(1.0,))], "five of sum 1"),
        ([signal("A", 0, weight=-0.1)], "set backtest.shorts to true"),
    ]
    for signals, says in cases:
        with pytest.raises(InputError) as error:
            run_backtest(signals, prices)
        assert says in str(error.value)
        assert one_line(error)


def test_negative_prices_are_refused(table, signal):
    prices = table(open_=[[1.0], [-1.0], [1.0]], close=[[1.0], [1.0], [1.0]])
    with pytest.raises(InputError, match="open of A on 2024-01-02 is -1: it must be above 0 and finite"):
        run_backtest([signal("A", 0, "BUY")], prices)


def test_a_signal_without_a_next_session_is_recorded(walk, signal):
    prices = walk(4, 1)
    result = run_backtest([signal("A", 1, "BUY"), signal("A", 3, "SELL")], prices)
    assert [s.as_of_date.day for s in result.unexecuted] == [4]
    assert result.metrics["signals"] == {
        "given": 2,
        "traded": 1,
        "no_signal": 0,
        "unexecuted": 1,
        "cells_without_signal": 0,
    }
    assert result.equity["date"].to_list()[-1].day == 3


def test_the_grid_starts_at_the_first_signal(walk, signal):
    prices = walk(8, 2)
    grid = signal_grid([signal("B", 2, "BUY"), signal("A", 4, "SELL")], prices.sessions, prices.tickers)
    assert (grid.first, grid.rank.shape) == (2, (3, 2))
    assert grid.present.sum() == 2
    assert (grid.rank[2, 0], grid.rank[0, 1]) == (-1, 1)


def test_age_counts_sessions_since_the_last_signal():
    present = np.array([[False], [True], [False], [False], [True]])
    assert signal_age(present)[1:, 0].tolist() == [0, 1, 2, 0]
    assert signal_age(present)[0, 0] > 5


@pytest.mark.parametrize(("expiry", "expected"), [(0, [1, 0, 0, 0]), (1, [1, None, 0, 0]), (5, [1, None, None, None])])
def test_a_missing_signal_keeps_the_position_until_it_expires(walk, signal, expiry, expected):
    prices = walk(8, 2)
    signals = [signal("A", 0, "BUY"), signal("B", 3, "BUY")]
    grid = signal_grid(signals, prices.sessions, prices.tickers)
    options = BacktestOptions(signal_expiry=expiry)
    found = place(np.nan_to_num(directions(grid, options)), grid, options)
    assert [None if np.isnan(d) else d for d in found[:, 0]] == expected
    assert found[:3, 1].tolist() == [0, 0, 0]


def test_an_unscored_row_is_not_hold(walk, signal):
    """HOLD = flat closes the position; no signal leaves it."""
    prices = walk(6, 1)
    kept = run_backtest([signal("A", 0, "BUY"), signal("A", 1), signal("A", 2)], prices)
    closed = run_backtest([signal("A", 0, "BUY"), signal("A", 1, "HOLD"), signal("A", 2)], prices)
    assert (kept.account.held[1:, 0] > 0).all()
    assert (closed.account.held[2:, 0] == 0).all()


def test_hold_never_opens(walk, everywhere):
    prices = walk(10, 3)
    for hold in ("flat", "keep"):
        assert not run_backtest(everywhere(prices, "HOLD"), prices, BacktestOptions(hold=hold)).account.traded.any()


def test_hold_keep_places_no_order(walk, signal):
    prices = walk(6, 1)
    signals = [signal("A", 0, "BUY"), *(signal("A", k, "HOLD") for k in range(1, 5))]
    result = run_backtest(signals, prices, BacktestOptions(hold="keep"))
    assert np.flatnonzero(result.account.traded[:, 0]).tolist() == [1]
    flat = run_backtest(signals, prices, BacktestOptions(hold="flat"))
    assert np.flatnonzero(flat.account.traded[:, 0]).tolist() == [1, 2]
    assert flat.metrics["hold"]["keep"]["total_return"] == result.metrics["performance"]["total_return"]
