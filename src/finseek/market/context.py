"""The market around a ticker, as one more series of bars whose features every ticker shows."""

from __future__ import annotations

import numpy as np

from finseek.core.errors import ConfigError
from finseek.market.prices import Prices

# Word before the feature's name in the prompt, by source.
PREFIX = {"universe": "mkt", "benchmark": "bmk"}


def context_prices(prices: Prices, source: str) -> Prices:
    """One column on the sessions of the table: the benchmark, or the universe held in equal parts.

    Raises:
        ConfigError: the benchmark is asked for and there is none.
    """
    if source == "universe":
        return universe_index(prices)
    if prices.benchmark is None:
        raise ConfigError("snapshot context benchmark needs prices.benchmark: name its ticker, or drop the context")
    return prices.benchmark


def universe_index(prices: Prices) -> Prices:
    """Level of the universe, 100 at first, grown by the mean adjusted return c_t / c_{t-1} - 1 of who traded on both.

    Only closes exist: open, high and low are set equal to them, volume is missing. NaN on a session on which no
    ticker has a return.
    """
    close = prices.adjusted_close
    growth = close[1:] / close[:-1] - 1
    known = ~np.isnan(growth)
    count = known.sum(axis=1, keepdims=True)
    mean = np.where(known, growth, 0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    level = 100 * np.cumprod(np.vstack([np.ones((1, 1)), 1 + mean]), axis=0)
    level = np.where(np.vstack([np.ones((1, 1)), count]) > 0, level, np.nan)
    return Prices(prices.sessions, ("UNIVERSE",), level, level, level, level, np.full(level.shape, np.nan), level)
