"""What every source of prices is to the store: a name and ``fetch(symbol, start, end) -> bars``."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Literal, Protocol

import msgspec
import polars as pl

from finseek.core.errors import FinseekError, InputError
from finseek.market.table import check_rows

ErrorKind = Literal[
    "key", "quota", "unknown_symbol", "throttled", "server", "network", "bad_answer", "empty", "refused"
]
# What no other symbol of the same provider can escape: the fetch stops.
FATAL: frozenset[ErrorKind] = frozenset({"key", "quota"})

BARS: dict[str, pl.DataType] = {
    "date": pl.Date(),
    **{name: pl.Float64() for name in ("open", "high", "low", "close", "adjusted_close", "volume")},
}


class ProviderError(FinseekError):
    """A provider gave no bars.

    Attributes:
        kind: what went wrong.
        transient: whether asking again may help.
        retry_after: seconds after which the provider wants to be asked again; None where it did not say.
    """

    def __init__(
        self, message: str, kind: ErrorKind, *, transient: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.transient = transient
        self.retry_after = retry_after


class Bar(msgspec.Struct, frozen=True):
    """One day of one symbol as it came over the wire; prices raw but for adjusted_close."""

    date: date
    open: float
    high: float
    low: float
    close: float
    adjusted_close: float
    volume: float | None = None


class Bars(msgspec.Struct, frozen=True):
    """An answer.

    Attributes:
        table: columns as ``BARS``, by date, no date twice, within the range that was asked for.
        note: what the provider said about it, as a limit of the subscription; empty where nothing.
    """

    table: pl.DataFrame
    note: str = ""


class Provider(Protocol):
    """A source of daily bars.

    Attributes:
        name: folder of its files in the store.
        source: where the bars come from, without secrets.
    """

    name: str
    source: str

    def fetch(self, symbol: str, start: date, end: date) -> Bars:
        """Bars of a symbol from start to end, both included; empty where it did not trade.

        Raises:
            ProviderError: there are none, and why.
        """

    def close(self) -> None:
        """Let go of connections."""


def bars_of(rows: Iterable[Bar] | pl.DataFrame, symbol: str, start: date, end: date, note: str = "") -> Bars:
    """Sort, check and cut what a provider answered.

    A row that is repeated as it is counts once; two rows of one day that differ are an error.

    Raises:
        ProviderError: a row that no daily bar can be.
    """
    if isinstance(rows, pl.DataFrame):
        table = rows.select(pl.col(name).cast(kind) for name, kind in BARS.items())
    else:
        table = pl.DataFrame([[getattr(row, name) for name in _WIRE] for row in rows], schema=_WIRE, orient="row")
        table = table.select(list(BARS))
    table = table.unique().filter(pl.col("date").is_between(start, end)).sort("date")
    try:
        check_rows(table.with_columns(ticker=pl.lit(symbol)), "the answer")
    except InputError as error:
        raise ProviderError(f"{symbol}: {error}", "bad_answer") from None
    return Bars(table, note)


_WIRE = {name: BARS[name] for name in Bar.__struct_fields__}
