from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from finseek.audit.hindsight import HindsightOptions, known_to_teacher, later_dates, lint_hindsight, summarize
from finseek.core.actions import Action
from finseek.core.sessions import Sessions
from finseek.market import Prices, load_prices
from finseek.theses import Thesis, read_theses, thesis_uid

DAY = date(2024, 3, 15)
DATES: list[Callable[[date], str]] = [
    lambda d: f"{d:%B} {d.day}, {d.year}",
    lambda d: f"{d:%b} {d.day}, {d.year}",
    lambda d: f"{d:%b}. {d.day} {d.year}",
    lambda d: f"{d.day} {d:%B} {d.year}",
    lambda d: f"the {d.day}th of {d:%B}, {d.year}",
    lambda d: d.isoformat(),
    lambda d: f"{d:%Y/%m/%d}",
    lambda d: f"{d.month}/{d.day}/{d.year}",
    lambda d: f"{d:%d.%m.%Y}",
]
QUOTES = [
    "The stock closed at ${:.2f} on strong volume.",
    "It opened at ${:.2f}",
    "a high of ${:.2f}, then a fade",
    "from $10.01 to ${:,.2f}; the SMA(20) is irrelevant here",
    "trading at USD {:,.2f} today",
]


def make(text: str, day: date = DAY, ticker: str = "T") -> Thesis:
    return Thesis(thesis_uid(ticker, day), ticker, day, text, "1. Volume", Action.BUY, {}, None, None, None, "f", 0)


@pytest.fixture(scope="module")
def prices() -> Prices:
    rng = np.random.default_rng(1)
    sessions = Sessions.of(np.arange("2024-01-01", "2024-06-01", dtype="M8[D]"))
    close = np.round(900 + np.cumsum(rng.normal(0, 9, (len(sessions), 1)), axis=0), 2)
    opened = np.round(close + rng.normal(0, 3, close.shape), 2)
    high, low = np.maximum(opened, close) + 1.17, np.minimum(opened, close) - 1.31
    return Prices(sessions, ("T",), opened, high, low, close, np.full_like(close, 1e6), np.round(close * 0.97, 4))


@pytest.mark.parametrize("form", DATES, ids=lambda form: form(date(2024, 5, 6)))
def test_a_later_date_in_every_form(form: Callable[[date], str]) -> None:
    for step in (1, 20, 400):
        text = f"We saw on {form(DAY + timedelta(days=step))} that it fell."
        assert len(list(later_dates(text, DAY, HindsightOptions()))) == 1, text
    for step in (0, -1, -300):
        assert list(later_dates(f"On {form(DAY + timedelta(days=step))} it fell.", DAY, HindsightOptions())) == []


def test_months_and_what_is_no_date() -> None:
    options = HindsightOptions()
    assert len(list(later_dates("peaked in April 2024 and in Jan 2025", DAY, options))) == 2
    for text in ("March 2024", "by 2030", "Q3 2024", "13/45/2024", "March 16", "RSI 2024.5", "version 2025"):
        assert list(later_dates(text, DAY, options)) == []
    assert list(later_dates("earnings on March 20, 2024", DAY, HindsightOptions(tolerated_days=7))) == []


def test_200_planted_violations(prices: Prices) -> None:
    rng = random.Random(3)
    place = int(prices.sessions.index([DAY])[0])
    raw = [prices.open, prices.high, prices.low, prices.close]
    tables = raw + [table * prices.adjusted_close / prices.close for table in raw]
    known = {round(float(value), 2) for table in tables for value in table[: place + 1, 0]}
    planted = []
    for n in range(200):
        if n % 2:
            day = DAY + timedelta(days=rng.randint(1, 200))
            planted.append(f"Momentum built and by {rng.choice(DATES)(day)} the trend was clear.")
        else:
            price = known.copy().pop()
            while price in known:
                table = rng.choice([prices.open, prices.high, prices.low, prices.close])
                price = round(float(table[place + rng.randint(1, 60), 0]), 2)
            planted.append(rng.choice(QUOTES).format(price))
    findings = lint_hindsight([make(text) for text in planted], prices)
    assert len(findings) >= 200
    for n, text in enumerate(planted):
        assert lint_hindsight([make(text)], prices), (n, text)


def test_prices_that_were_known_are_none(prices: Prices) -> None:
    place = int(prices.sessions.index([DAY])[0])
    for table in (prices.open, prices.high, prices.low, prices.close, prices.adjusted_close):
        for step in (0, 5, 40):
            assert lint_hindsight([make(f"It closed at ${table[place - step, 0]:.2f}.")], prices) == []


def test_a_price_known_by_its_adjustment_is_none(prices: Prices) -> None:
    place = int(prices.sessions.index([DAY])[0])
    close = prices.close.copy()
    close[place + 4, 0] = 1234.56
    for adjusted, findings in ((1234.56, 0), (1234.99, 1)):
        table = prices.adjusted_close.copy()
        table[place - 4, 0] = adjusted
        changed = dataclasses.replace(prices, close=close, adjusted_close=table)
        assert len(lint_hindsight([make("It closed at $1,234.56.")], changed)) == findings


def test_averages_and_other_money_are_not_judged(prices: Prices) -> None:
    later = prices.close[int(prices.sessions.index([DAY])[0]) + 3, 0]
    assert lint_hindsight([make(f"It closed at ${later:.2f}.")], prices)
    for text in ("SMA(20) of ${:.2f}", "${:.2f} EMA", "EPS of ${:.2f}", "resistance near ${:.2f}", "${:.2f} billion"):
        assert lint_hindsight([make(text.format(later))], prices) == []
    assert lint_hindsight([make(f"It closed at ${later:.2f}.")], None) == []
    assert lint_hindsight([make(f"It closed at ${later:.2f}.", ticker="U")], prices) == []
    assert lint_hindsight([make(f"It closed at ${later:.2f}.")], prices, HindsightOptions(price_horizon=2)) == []


def test_what_the_teacher_may_have_known_is_marked() -> None:
    theses = [make("fine", DAY + timedelta(days=step)) for step in (-1, 0, 1)]
    marked = known_to_teacher(theses, DAY)
    assert [(finding.uid, finding.kind) for finding in marked] == [(t.uid, "known_to_teacher") for t in theses[:2]]
    assert known_to_teacher(theses, None) == []


def test_summary(prices: Prices) -> None:
    theses = [make("On April 1, 2024 and April 2, 2024"), make("fine", DAY - timedelta(days=1))]
    options = HindsightOptions(teacher_cutoff=DAY - timedelta(days=1))
    findings = lint_hindsight(theses, prices, options)
    assert summarize(findings, theses, options) == {
        "theses": 2,
        "flagged": 1,
        "findings": {"date_after_as_of": 2},
        "teacher_cutoff": "2024-03-14",
        "as_of_teacher_cutoff_or_before": 1,
    }


@pytest.mark.realdata
def test_few_real_theses_are_flagged(real_theses: Path, real_prices: Path) -> None:
    theses, _ = read_theses(real_theses)
    flagged = {finding.uid for finding in lint_hindsight(theses, load_prices(real_prices))}
    assert 0 < len(flagged) < 0.01 * len(theses)
