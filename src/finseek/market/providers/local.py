"""Bars that need no network: a file of the user's, and the synthetic market."""

from __future__ import annotations

from datetime import date
from functools import cached_property
from pathlib import Path

import polars as pl

from finseek.market.options import PricesOptions
from finseek.market.prices import Prices
from finseek.market.providers.base import BARS, Bars, ProviderError, bars_of
from finseek.market.synthetic import generate_prices
from finseek.market.table import read_price_table, to_table


class _Table:
    """A provider that holds all its bars."""

    name: str
    source: str

    @property
    def rows(self) -> pl.DataFrame:
        """All bars, with their ticker."""
        raise NotImplementedError

    def fetch(self, symbol: str, start: date, end: date) -> Bars:
        """See ``Provider``."""
        own = self.rows.filter(pl.col("ticker") == symbol)
        if own.is_empty():
            raise ProviderError(f"{self.source} has no prices of {symbol}: add them", "unknown_symbol")
        return bars_of(own.select(list(BARS)), symbol, start, end)

    def close(self) -> None:
        """See ``Provider``."""


class File(_Table):
    """A Parquet or CSV file with the columns that the options name."""

    name = "file"

    def __init__(self, path: Path, options: PricesOptions) -> None:
        self.source, self._path, self._options = str(path), path, options

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The file, read once."""
        return read_price_table(self._path, self._options)


class Synthetic(_Table):
    """The synthetic market of a seed."""

    name = "synthetic"

    def __init__(self, seed: int = 0) -> None:
        self.source, self._seed = f"synthetic market, seed {seed}", seed

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The market, drawn once."""
        prices: Prices = generate_prices(self._seed)[0]
        return to_table(prices)
