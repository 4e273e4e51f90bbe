"""The teacher's own actions on the real prices: the table of the data's README."""

from __future__ import annotations

import zipfile
from datetime import date
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from lxml import etree

from finseek.backtest import BacktestOptions, Signal, exposure_matched_excess, run_backtest
from finseek.backtest.nulls import null_sharpes, p_value
from finseek.core.actions import Action, parse_action
from finseek.market import load_prices

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def teacher(real_theses) -> list[Signal]:
    """The actions of the theses; where the teacher failed there is no signal."""
    signals = []
    with zipfile.ZipFile(real_theses) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".xml")):
            root = etree.fromstring(archive.read(name))
            for thesis in root.iter("thesis"):
                word = thesis.findtext("action").strip()
                action = None if word == "error" else parse_action(word)
                signals.append(Signal(root.get("ticker"), date.fromisoformat(thesis.findtext("as-of-date")), action))
    return sorted(signals, key=lambda s: (s.ticker, s.as_of_date))


@pytest.fixture(scope="module")
def prices(real_prices, teacher):
    return load_prices(real_prices, tickers=sorted({s.ticker for s in teacher}))


TABLE = BacktestOptions(transaction_cost=0.0005, slippage=0.001, allow_leverage=True, signal_expiry=0, nulls=0)


def run(signals, prices, **changes):
    return run_backtest(signals, prices, TABLE.model_copy(update=changes))


def since_2025(signals):
    return [s for s in signals if s.as_of_date >= date(2025, 1, 1)]


def replaced(signals, action):
    return [Signal(s.ticker, s.as_of_date, action) for s in signals]


def printed(total):
    """A return as the table of the data's README prints it: a percentage of two decimals, rounded once more to one.

    That is the one rule under which every row comes out of one and the same account: 7.345 % becomes 7.35 and then
    7.4, -5.146 % becomes -5.15 and then -5.2. Rounded once they would be 7.3 and -5.1. No reading of HOLD, of the
    window, of leverage or of the last row gives all rows in one step: keeping the last *weight* would give 7.4 (7.376)
    and a window that begins a session earlier -5.2 (-5.188), each of its row alone and both against the conventions.
    """
    cents = Decimal(f"{100 * total:.2f}")
    return float(cents.quantize(Decimal("0.1"), ROUND_HALF_UP))


@pytest.mark.parametrize(
    ("choose", "changes", "total", "sharpe"),
    [
        (list, {}, -2.8, -0.33),
        (since_2025, {}, -5.2, -2.33),
        (list, {"hold": "keep"}, 7.4, 0.74),
        (list, {"shorts": True}, -25.8, -1.83),
    ],
)
def test_table_of_the_readme(teacher, prices, choose, changes, total, sharpe):
    """Each row to the digits printed there. A failed answer of the teacher closes its position (no expiry).

    The expiry matters to the long/short row alone: five sessions of it (the default) make -26.0 %.
    """
    found = run(choose(teacher), prices, **changes).metrics["performance"]
    assert printed(found["total_return"]) == total
    assert round(found["sharpe"], 2) == sharpe


def test_all_buy(teacher, prices):
    result = run(replaced(teacher, Action.BUY), prices)
    assert round(result.metrics["performance"]["total_return"], 2) == 0.32
    assert round(result.metrics["performance"]["sharpe"], 2) == 1.15
    assert result.metrics["benchmarks"]["all_buy"]["total_return"] == result.metrics["performance"]["total_return"]


def test_figures_by_the_conventions(teacher, prices):
    """More digits, so that a change of the account shows; the test split's row 0 is its first decision session."""
    flat, test = run(teacher, prices), run(since_2025(teacher), prices)
    assert flat.metrics["performance"]["total_return"] == pytest.approx(-0.02844834, abs=1e-8)
    assert flat.metrics["hold"]["keep"]["total_return"] == pytest.approx(0.07345403, abs=1e-8)
    assert test.metrics["performance"]["total_return"] == pytest.approx(-0.05145923, abs=1e-8)
    assert (len(flat.equity), len(test.equity)) == (377, 78)
    totals = [run(teacher, prices, shorts=True, signal_expiry=e).metrics["performance"]["total_return"] for e in (0, 5)]
    assert totals == pytest.approx([-0.25753201, -0.26010358], abs=1e-8)


def test_all_hold_earns_exactly_nothing(teacher, prices):
    for hold in ("flat", "keep"):
        result = run(replaced(teacher, Action.HOLD), prices, hold=hold)
        assert (result.equity["equity"] == 100_000.0).all()
        assert result.metrics["performance"]["total_return"] == 0.0
        assert result.metrics["performance"]["sharpe"] is None


def test_all_sell_is_the_negative_of_all_buy_at_the_open(teacher, prices):
    free = {"transaction_cost": 0.0, "slippage": 0.0, "shorts": True}
    buy, sell = (
        run(replaced(teacher, action), prices, **free).equity["equity_at_open"].to_numpy()
        for action in (Action.BUY, Action.SELL)
    )
    assert np.abs(buy[2:] / buy[1:-1] - 1 + sell[2:] / sell[1:-1] - 1).max() < 1e-15 * 4
    assert buy[-1] > 1.3e5


def test_p_value_of_shifted_weights_is_uniform(teacher, prices):
    """500 null books as strategies, each against one pool of 2,000 others: uniform by Kolmogorov and Smirnov."""
    result = run(teacher, prices)

    def draw(count, seed):
        return null_sharpes(result.weights, result.tape, result.options, count, np.random.default_rng(seed))

    pool = draw(2_000, 1)
    p = np.sort([p_value(value, pool) for value in draw(500, 2)])
    distance = np.abs(p - (np.arange(500) + 0.5) / 500).max()
    assert distance < 1.36 * np.sqrt(1 / 500 + 1 / 2_000)
    assert 0.03 < np.mean(p <= 0.05) < 0.08


def test_cost_free_all_buy_has_no_excess(teacher, prices):
    result = run(replaced(teacher, Action.BUY), prices, transaction_cost=0.0, slippage=0.0)
    assert np.abs(exposure_matched_excess(result)).max() < 1e-14
