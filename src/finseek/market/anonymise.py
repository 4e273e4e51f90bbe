"""A market that cannot be recognised: for tests of what a model remembers instead of reads.

Tickers become codes that depend on a seed alone, days become offsets, prices start at 100 and volumes at a million.
What the snapshot shows stays as it is, because it is free of scale.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from finseek.core.errors import InputError
from finseek.core.sessions import Sessions
from finseek.market.prices import Floats, Prices


@dataclass(frozen=True)
class Anonymiser:
    """Codes of tickers and days.

    Attributes:
        sessions: of the table; day number 0 is its first.
        seed: other seeds give other codes.
    """

    sessions: Sessions
    seed: int = 0

    def ticker(self, name: str) -> str:
        """Code of a ticker, six letters and digits; the same whatever else is in the universe."""
        digest = hashlib.sha256(f"{self.seed}|{name}".encode()).digest()
        return base64.b32encode(digest)[:6].decode()

    def day(self, day: date) -> int:
        """Number of the session, counted from the first of the table.

        Raises:
            InputError: the day is no session.
        """
        place = int(self.sessions.index([day])[0])
        if place < 0:
            raise InputError(f"{day} is no session of the price table: it has no number")
        return place


def anonymise_prices(prices: Prices, seed: int = 0) -> Prices:
    """The same market under codes: session k is the day k of 1970, adjusted prices start at 100, volumes at a million.

    Raises:
        InputError: two tickers get the same code (choose another seed).
    """
    codes = Anonymiser(prices.sessions, seed)
    names = [codes.ticker(name) for name in prices.tickers]
    if len(set(names)) < len(names):
        raise InputError(f"two tickers get the same code with seed {seed}: choose another seed")
    sessions = Sessions(np.arange(len(prices.sessions)).astype("datetime64[D]"))
    order = np.argsort(np.array(names))
    benchmark = prices.benchmark
    index = None
    if benchmark is not None:
        index = Prices(sessions, (codes.ticker(benchmark.tickers[0]),), *_rebased(benchmark, np.array([0])))
    return Prices(sessions, tuple(sorted(names)), *_rebased(prices, order), index)


def _rebased(prices: Prices, order: NDArray[np.int64]) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """Open, high, low, close, volume, adjusted close in another order of columns and other units."""
    scale = 100 / _first(prices.adjusted_close)
    volume = prices.volume * (1e6 / _first(np.where(prices.volume > 0, prices.volume, np.nan)))
    o, h, l, c, a = (  # noqa: E741
        (array * scale)[:, order]
        for array in (prices.open, prices.high, prices.low, prices.close, prices.adjusted_close)
    )
    return o, h, l, c, volume[:, order], a


def _first(values: Floats) -> Floats:
    """First number of each column that is not NaN, NaN where there is none; shape (N,)."""
    first: Floats = values[np.argmax(~np.isnan(values), axis=0), np.arange(values.shape[1])]
    return first
