"""Bars that need no network: a file of the user's, and the synthetic market."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import cached_property
from pathlib import Path

import polars as pl

from finseek.market.options import PricesOptions
from finseek.market.providers.base import BARS, Bars, ProviderError, bars_of
from finseek.market.synthetic import generate_prices
from finseek.market.table import read_price_table, to_table


class Local:
    """A provider that holds all its bars.

    Args:
        name: folder of its files in the store.
        source: where the bars come from.
        read: all bars, with their ticker; called once, when they are first asked for.
    """

    def __init__(self, name: str, source: str, read: Callable[[], pl.DataFrame]) -> None:
        self.name, self.source, self._read = name, source, read

    @cached_property
    def rows(self) -> pl.DataFrame:
        """All bars, with their ticker."""
        return self._read()

    def fetch(self, symbol: str, start: date, end: date) -> Bars:
        """See ``Provider``."""
        own = self.rows.filter(pl.col("ticker") == symbol)
        if own.is_empty():
            raise ProviderError(f"{self.source} has no prices of {symbol}: add them", "unknown_symbol")
        return bars_of(own.select(list(BARS)), symbol, start, end)

    def close(self) -> None:
        """See ``Provider``."""


def file_provider(path: Path, options: PricesOptions) -> Local:
    """A Parquet or CSV file with the columns that the options name."""
    return Local("file", str(path), lambda: read_price_table(path, options))


def synthetic_provider(seed: int = 0) -> Local:
    """The synthetic market of a seed."""
    return Local("synthetic", f"synthetic market, seed {seed}", lambda: to_table(generate_prices(seed)[0]))
