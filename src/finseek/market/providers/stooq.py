"""Stooq (stooq.com): ``GET /q/d/l/?s=amzn.us&d1=&d2=&i=d``, CSV; prices are adjusted already, raw ones do not exist."""

from __future__ import annotations

from datetime import date

import polars as pl

from finseek.market.providers.base import Bars, ProviderError, bars_of
from finseek.market.providers.http import HttpSource

URL = "https://stooq.com"
HEADER = ["Date", "Open", "High", "Low", "Close", "Volume"]


class Stooq:
    """Daily bars of Stooq; ``adjusted_close`` equals ``close``, so quoted closes need not match across splits.

    Args:
        http: the connection.
    """

    name = "stooq"

    def __init__(self, http: HttpSource) -> None:
        self._http, self.source = http, http.base_url

    def fetch(self, symbol: str, start: date, end: date) -> Bars:
        """See ``Provider``."""
        asked = {"s": symbol.lower(), "d1": f"{start:%Y%m%d}", "d2": f"{end:%Y%m%d}", "i": "d"}
        return bars_of(self._http.get("q/d/l/", asked, _parse), symbol, start, end)

    def close(self) -> None:
        """See ``Provider``."""
        self._http.close()


def _parse(body: bytes) -> pl.DataFrame:
    """Stooq answers everything with status 200: what went wrong stands in the text."""
    text = body.decode("utf-8", "replace").strip()
    first = text.partition("\n")[0].strip()
    if first.lower().startswith("no data"):
        raise ProviderError("the provider does not know the symbol: check it and its exchange", "unknown_symbol")
    if "daily hits limit" in first.lower():
        raise ProviderError("the daily limit of requests is used up: try tomorrow", "quota")
    names = first.split(",")
    if names not in (HEADER, HEADER[:-1]):
        raise ProviderError(f"the answer is no table of prices but {first[:80]!r}", "bad_answer", transient=True)
    lines = [line.split(",") for line in text.splitlines()[1:]]
    if any(len(line) != len(names) for line in lines):
        raise ProviderError("the answer is truncated", "bad_answer", transient=True)
    table = pl.DataFrame(lines, schema=dict.fromkeys((name.lower() for name in names), pl.String), orient="row")
    if "volume" not in table.columns:
        table = table.with_columns(volume=pl.lit(None, dtype=pl.String))
    try:
        table = table.with_columns(
            pl.col("date").str.to_date("%Y-%m-%d"),
            pl.col("open", "high", "low", "close").cast(pl.Float64),
            pl.col("volume").replace("", None).cast(pl.Float64),
        )
    except pl.exceptions.PolarsError as error:
        raise ProviderError(f"the answer is no table of prices ({str(error)[:120]})", "bad_answer") from None
    return table.with_columns(adjusted_close=pl.col("close"))
