from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from finseek.core.actions import ACTIONS, Action
from finseek.core.sessions import Sessions
from finseek.evaluate import EvaluateOptions, Prediction, read_predictions, score_predictions, write_results
from finseek.evaluate.financial import directional_series, row_returns
from finseek.market import Prices, generate_prices

OPTIONS = EvaluateOptions(bootstrap_resamples=200, forward_windows=(1, 3, 5))


def table(opens: list[list[float]], tickers="AB") -> Prices:
    """A price table with these opens, adjusted by a factor that must not show."""
    raw = np.array(opens, dtype=float)
    sessions = Sessions.of(np.datetime64("2025-01-06") + np.arange(len(raw)))
    return Prices(sessions, tuple(tickers), raw * 2, raw * 2, raw * 2, raw * 2, raw * 0 + 100, raw)


def row(ticker: str, day: int, action: Action | None) -> Prediction:
    return Prediction(
        ticker, date(2025, 1, 6 + day), Action.BUY, action, "scored" if action else "tie", completion=f"{day}"
    )


def test_by_hand():
    prices = table([[9, 9], [10, 20], [11, 18], [11, 27], [22, 27]])
    rows = [
        row("A", 0, Action.BUY),  # open 10 -> 11: +10 %, hit
        row("B", 0, Action.STRONG_SELL),  # 20 -> 18: earns +10 %, hit
        row("A", 1, Action.SELL),  # 11 -> 11: zero, excluded
        row("B", 1, Action.SELL),  # 18 -> 27: earns -50 %, miss
        row("A", 2, Action.HOLD),
        row("B", 2, None),
        row("A", 3, Action.BUY),  # no open after it
        row("C", 0, Action.BUY),  # no prices
    ]
    found = score_predictions(rows, prices, OPTIONS).financial["1"]
    assert found["rows"] == {
        "with_return": 6,
        "without_return": 2,
        "directional": 4,
        "hold": 1,
        "unscored": 1,
        "zero_return": 1,
    }
    assert found["hit_rate"]["value"] == pytest.approx(2 / 3)
    assert found["mean_return"]["value"] == pytest.approx((0.1 + 0.1 + 0 - 0.5) / 4)
    series = np.array([(0.1 + 0.1) / 2, (0 - 0.5) / 2, 0])
    assert found["directional"]["sessions"] == 3
    assert found["directional"]["sessions_without_return"] == 1
    assert found["directional"]["sharpe"]["value"] == pytest.approx(series.mean() / series.std(ddof=1) * np.sqrt(252))


def slow_books(rows, prices, horizon):
    """Session by session, book by book, ticker by ticker."""
    index = {np.datetime64(day): s for s, day in enumerate(prices.sessions.dates)}
    universe = sorted({r.ticker for r in rows if r.ticker in prices.tickers})
    decided = {(index[np.datetime64(r.as_of_date)], r.ticker): r.pred_action for r in rows}
    first, last = min(s for s, _ in decided), max(s for s, _ in decided)
    opens, series = prices.adjusted_open, []
    for s in range(first, last + horizon):
        earned, seen = 0.0, 0
        for ticker in universe:
            c = prices.column(ticker)
            if s + 2 >= len(opens) or np.isnan(opens[s + 1, c]) or np.isnan(opens[s + 2, c]):
                continue
            seen += 1
            for age in range(horizon):
                action = decided.get((s - age, ticker))
                earned += (action.direction if action else 0) / horizon * (opens[s + 2, c] / opens[s + 1, c] - 1)
        if seen:
            series.append(earned / seen)
    return np.array(series)


@pytest.mark.parametrize("horizon", [1, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_staggered_books_equal_the_slow_way(horizon, seed):
    prices, _ = generate_prices(seed, n_tickers=6, n_sessions=80)
    rng = np.random.default_rng(seed)
    rows = [
        Prediction(ticker, day.item(), Action.BUY, action, "scored" if action else "tie")
        for day in prices.sessions.dates[40 : 78 - seed]
        for ticker in prices.tickers[:5]
        if rng.random() < 0.8
        for action in [[*ACTIONS, None][rng.integers(6)]]
    ]
    returns = row_returns(rows, prices, (1, 3, 5))
    direction = np.array([r.pred_action.direction if r.pred_action else 0 for r in rows])
    fast = directional_series(direction, returns, horizon)
    slow = slow_books(rows, prices, horizon)
    np.testing.assert_allclose(fast[np.isfinite(fast)], slow, atol=1e-14)
    found = score_predictions(rows, prices, OPTIONS).financial[str(horizon)]
    assert found["directional"]["sharpe"]["value"] == pytest.approx(slow.mean() / slow.std(ddof=1) * np.sqrt(252))


def test_opposite_actions_earn_the_opposite():
    prices, _ = generate_prices(1, n_tickers=4, n_sessions=60)
    flip = {Action.BUY: Action.SELL, Action.SELL: Action.BUY}
    rows = [
        Prediction(t, d.item(), Action.BUY, (Action.BUY, Action.SELL)[(i + j) % 2], "scored")
        for i, d in enumerate(prices.sessions.dates[10:50])
        for j, t in enumerate(prices.tickers)
    ]
    ours = score_predictions(rows, prices, OPTIONS).financial["1"]
    other = [Prediction(r.ticker, r.as_of_date, r.gt_action, flip[r.pred_action], r.status) for r in rows]
    theirs = score_predictions(other, prices, OPTIONS).financial["1"]
    assert ours["directional"]["sharpe"]["value"] == pytest.approx(-theirs["directional"]["sharpe"]["value"])
    assert ours["mean_return"]["value"] == pytest.approx(-theirs["mean_return"]["value"])
    assert ours["hit_rate"]["value"] == pytest.approx(1 - theirs["hit_rate"]["value"])


def test_all_hold_has_no_sharpe_and_no_hit_rate():
    prices, _ = generate_prices(1, n_tickers=4, n_sessions=60)
    rows = [
        Prediction(prices.tickers[0], d.item(), Action.BUY, Action.HOLD, "scored") for d in prices.sessions.dates[:30]
    ]
    found = score_predictions(rows, prices, OPTIONS).financial["1"]
    assert found["hit_rate"]["value"] is None
    assert found["directional"]["sharpe"] == {"value": None, "low": None, "high": None}


def test_realized_return_is_the_forward_return_at_horizon_one(tmp_path):
    prices = table([[9, 9], [10, 20], [11, 18]])
    write_results(tmp_path / "r.csv", [row("A", 0, Action.BUY), row("B", 1, Action.BUY)], prices)
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert float(lines[1].split(",")[-1]) == pytest.approx(0.1)
    assert lines[2].endswith(",")
    assert len(read_predictions(tmp_path / "r.csv")) == 2
