"""Small price tables for the tests of the backtest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import pytest

from finseek.backtest import Signal
from finseek.core.actions import Action
from finseek.core.sessions import Sessions
from finseek.market import Prices

START = date(2024, 1, 1)


def days(count: int) -> list[date]:
    """Consecutive days: the sessions of the small tables."""
    return [START + timedelta(days=k) for k in range(count)]


@pytest.fixture
def table() -> Callable[..., Prices]:
    """Build a price table from open and close arrays (S, N); the adjusted close is the close."""

    def build(open_, close, adjusted=None, volume=None, tickers=None):
        open_, close = np.asarray(open_, float), np.asarray(close, float)
        count, names = close.shape
        return Prices(
            sessions=Sessions.of(days(count)),
            tickers=tuple(tickers or (chr(65 + k) for k in range(names))),
            open=open_,
            high=np.maximum(open_, close),
            low=np.minimum(open_, close),
            close=close,
            volume=np.full(close.shape, 1e6) if volume is None else np.asarray(volume, float),
            adjusted_close=close if adjusted is None else np.asarray(adjusted, float),
            benchmark=None,
        )

    return build


@pytest.fixture
def walk(table) -> Callable[..., Prices]:
    """A random walk of S sessions and N names from a seed."""

    def build(sessions, names, seed=0, **kwargs):
        rng = np.random.default_rng(seed)
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, (sessions, names)), axis=0))
        open_ = np.vstack([close[:1], close[:-1]]) * np.exp(rng.normal(0, 0.01, (sessions, names)))
        return table(open_, close, **kwargs)

    return build


@pytest.fixture
def signal() -> Callable[..., Signal]:
    """A signal of a ticker on day number ``day``."""

    def build(ticker, day, action=None, weight=None):
        return Signal(ticker, START + timedelta(days=day), action and Action(action), weight)

    return build


@pytest.fixture
def everywhere(signal):
    """The same action (or one drawn from several, by a seed) for every ticker on the first ``count`` days."""

    def build(prices, action, count=None, seed=0):
        rng = np.random.default_rng(seed)
        choices = [action] if isinstance(action, str) else list(action)
        count = len(prices.sessions) - 1 if count is None else count
        return [signal(t, k, choices[rng.integers(len(choices))]) for t in prices.tickers for k in range(count)]

    return build
