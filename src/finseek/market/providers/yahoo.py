"""Yahoo through yfinance (extra ``prices``).

Yahoo rewrites its whole history when a stock splits: its "close" of yesterday is divided by the split of today. Raw
prices are got back by multiplying with the splits that came after each day, raw volume by dividing.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from finseek.core.errors import MissingPart
from finseek.market.providers.base import Bars, ProviderError, bars_of


class Yahoo:
    """Daily bars of Yahoo."""

    name = "yfinance"
    source = "https://finance.yahoo.com (yfinance)"

    def fetch(self, symbol: str, start: date, end: date) -> Bars:
        """See ``Provider``.

        Raises:
            MissingPart: yfinance is not installed.
            ProviderError: it gave no bars.
        """
        try:
            import yfinance
        except ModuleNotFoundError:
            raise MissingPart("yfinance", "prices", "provider yfinance") from None
        try:
            ticker = yfinance.Ticker(symbol)
            history = ticker.history(
                start=start, end=end + timedelta(days=1), auto_adjust=False, back_adjust=False, raise_errors=True
            )
            splits = ticker.splits
        except Exception as error:  # the library raises whatever its own libraries do
            kind = "throttled" if "RateLimit" in type(error).__name__ else "refused"
            raise ProviderError(f"{symbol}: yfinance says {str(error)[:120]!r}", kind) from None  # type: ignore[arg-type]
        return bars_of(bars_from_yahoo(history, splits), symbol, start, end)

    def close(self) -> None:
        """See ``Provider``."""


def bars_from_yahoo(history: Any, splits: Any) -> pl.DataFrame:
    """Raw bars from a pandas history (Open High Low Close "Adj Close" Volume) and a series of splits by day."""
    days = np.array([stamp.date() for stamp in history.index], dtype="datetime64[D]")
    later = np.ones(len(days))
    for stamp, ratio in splits.items():
        later[days < np.datetime64(stamp.date(), "D")] *= float(ratio)
    columns = {
        name.lower(): history[name].to_numpy(dtype=np.float64) * later for name in ("Open", "High", "Low", "Close")
    }
    adjusted = history["Adj Close"].to_numpy(dtype=np.float64)
    volume = history["Volume"].to_numpy(dtype=np.float64) / later
    return pl.DataFrame({"date": days, **columns, "adjusted_close": adjusted, "volume": volume})
