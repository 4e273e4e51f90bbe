"""The store of fetched prices: one Parquet file a provider and symbol, which says what it covers and can prove it.

``FOLDER/PROVIDER/SYMBOL.parquet`` holds the bars; its metadata holds the days that it covers (asked for and answered,
whether or not there was a bar), where and when it came from, and the SHA-256 of bars and days. A file is replaced
whole; a lock beside it, let go by the kernel however a process dies, keeps a second process waiting.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import polars as pl

from finseek.core.artifacts import PARTIAL, atomic_file
from finseek.core.errors import ArtifactError, InputError
from finseek.market.options import COLUMNS
from finseek.market.providers import Bars, Provider, ProviderError
from finseek.market.providers.base import BARS

LOG = logging.getLogger(__name__)
FORMAT = 1
# Bars that a request for more repeats, to see whether the provider has adjusted its history in the meantime.
OVERLAP = 5
# Providers deliver a day's bar hours late and mend it for days: what is younger counts as covered only up to a bar.
SETTLED = timedelta(days=7)

Action = Literal["fetched", "extended", "refetched", "unchanged"]


@dataclass(frozen=True)
class Held:
    """What the store has of one symbol.

    Attributes:
        table: bars, columns as ``BARS``, by date.
        start: first day covered.
        end: last day covered.
        source: where the bars came from.
        fetched_at: when, ISO 8601 UTC.
        note: what the provider said about them.
    """

    table: pl.DataFrame
    start: date
    end: date
    source: str
    fetched_at: str
    note: str = ""

    @property
    def sha256(self) -> str:
        """Hash of the bars and the days covered; independent of the time of the fetch and of the file format."""
        digest = hashlib.sha256(f"{self.start}|{self.end}|{self.table.height}".encode())
        for name in BARS:
            column = self.table[name]
            column = column.to_physical() if name == "date" else column.fill_null(float("nan"))
            digest.update(column.to_numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Store:
    """A folder of fetched prices."""

    folder: Path

    def path(self, provider: str, symbol: str) -> Path:
        """File of a symbol; every character that is no letter, digit or one of ``_.-~`` is percent-encoded."""
        return self.folder / provider / f"{quote(symbol, safe='')}.parquet"

    def read(self, provider: str, symbol: str) -> Held | None:
        """What is held of a symbol; None where there is nothing.

        Raises:
            ArtifactError: the file is damaged.
        """
        path = self.path(provider, symbol)
        if not path.exists():
            return None
        try:
            about = json.loads(pl.read_parquet_metadata(path)["finseek"])
            if about["format"] != FORMAT or about["symbol"] != symbol or about["provider"] != provider:
                raise ValueError(f"it says it is {about['provider']} {about['symbol']}, format {about['format']}")
            held = Held(
                pl.read_parquet(path).select(list(BARS)),
                date.fromisoformat(about["start"]),
                date.fromisoformat(about["end"]),
                about["source"],
                about["fetched_at"],
                about["note"],
            )
        except (pl.exceptions.PolarsError, OSError, KeyError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path} is damaged ({str(error)[:120]}): fetch {symbol} again") from None
        if held.sha256 != about["sha256"]:
            raise ArtifactError(f"{path} is damaged (its hash is not the one it says): fetch {symbol} again")
        return held

    def write(self, provider: str, symbol: str, held: Held) -> None:
        """Replace what is held of a symbol."""
        about = {
            "format": FORMAT,
            "provider": provider,
            "symbol": symbol,
            "start": held.start.isoformat(),
            "end": held.end.isoformat(),
            "source": held.source,
            "fetched_at": held.fetched_at,
            "note": held.note,
            "sha256": held.sha256,
        }
        with atomic_file(self.path(provider, symbol)) as partial:
            held.table.write_parquet(partial, compression="zstd", metadata={"finseek": json.dumps(about)})

    def update(
        self, provider: Provider, symbol: str, start: date, end: date, now: datetime
    ) -> tuple[Held, Action, str]:
        """See to it that a symbol is covered from start to end, fetching only what is missing.

        Args:
            provider: asked for what is missing.
            symbol: the provider's name of it.
            start: first day.
            end: last day; days after yesterday (UTC) are left out, because their bar is not final.
            now: time of the fetch, UTC.

        Returns:
            What is held now, what was done, and why where the whole was fetched again.

        Raises:
            ProviderError: the provider gave nothing usable; what was held before is untouched.
        """
        end = min(end, now.date() - timedelta(days=1))
        if start > end:
            raise InputError(f"{symbol}: there are no final bars from {start} to {end}: ask for earlier days")
        with self._locked(provider.name, symbol):
            why = ""
            try:
                held = self.read(provider.name, symbol)
            except ArtifactError as error:
                held, why = None, str(error)
                LOG.warning("%s", error)
            if held is not None and held.start <= start and end <= held.end:
                return held, "unchanged", ""
            action: Action = "refetched" if why else "fetched"
            if held is not None:
                grown, why = _grow(provider, symbol, held, start, end, now)
                if grown is not None:
                    self.write(provider.name, symbol, grown)
                    return grown, "extended", ""
                LOG.warning("%s: %s; fetching it whole", symbol, why)
                start, end, action = min(start, held.start), max(end, held.end), "refetched"
            bars = _ask(provider, symbol, start, end)
            whole = _covering(bars, provider, start, end, now)
            self.write(provider.name, symbol, whole)
            return whole, action, why

    def table(self, provider: str, symbols: dict[str, str], start: date | None, end: date | None) -> pl.DataFrame:
        """Rows of a price table, columns as ``options.COLUMNS``.

        Args:
            provider: whose bars.
            symbols: the provider's symbol of each ticker.
            start: first day; None from the first that is held.
            end: last day; None to the last that is held.

        Raises:
            InputError: a symbol is not held, or not over these days.
            ArtifactError: a file is damaged.
        """
        parts = []
        for ticker, symbol in symbols.items():
            held = self.read(provider, symbol)
            if held is None or (start and start < held.start) or (end and end > held.end):
                has = f"only {held.start} to {held.end}" if held else "nothing"
                raise InputError(
                    f"the store {self.folder} holds {has} of {ticker} ({provider} {symbol}): run finseek prices fetch"
                )
            parts.append(held.table.with_columns(ticker=pl.lit(ticker)))
        table = pl.concat(parts).select(COLUMNS)
        if start or end:
            table = table.filter(pl.col("date").is_between(start or date.min, end or date.max))
        return table.sort("ticker", "date")

    @contextmanager
    def _locked(self, provider: str, symbol: str) -> Iterator[None]:
        path = self.path(provider, symbol)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for left_over in path.parent.glob(f".{_glob_quoted(path.name)}.*{PARTIAL}"):
                left_over.unlink(missing_ok=True)
            yield
        finally:
            os.close(descriptor)


def _glob_quoted(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _ask(provider: Provider, symbol: str, start: date, end: date) -> Bars:
    bars = provider.fetch(symbol, start, end)
    if bars.table.is_empty():
        raise ProviderError(f"{symbol}: no bars from {start} to {end}: check symbol and range", "empty")
    return bars


def _covering(bars: Bars, provider: Provider, start: date, end: date, now: datetime) -> Held:
    """An answer with the days that it may be said to cover."""
    first, last = bars.table["date"][0], bars.table["date"][-1]
    return Held(
        bars.table,
        first if bars.note else start,  # a note says that the subscription cut the answer
        end if end <= now.date() - SETTLED else last,
        provider.source,
        now.isoformat(timespec="seconds"),
        bars.note,
    )


def _grow(
    provider: Provider, symbol: str, held: Held, start: date, end: date, now: datetime
) -> tuple[Held | None, str]:
    """Fetch what is missing before and after; None and the reason where the overlap no longer agrees."""
    days: Sequence[date] = held.table["date"].to_list()
    grown = held
    if end > held.end:
        late = _ask(provider, symbol, days[max(len(days) - OVERLAP, 0)], end)
        reason = _disagreement(held.table, late.table)
        if reason:
            return None, reason
        fresh = _covering(late, provider, held.start, end, now)
        fresh = replace(fresh, start=held.start, end=max(fresh.end, held.end))
        grown = replace(fresh, table=_joined(held.table, late.table))
    if start < held.start:
        early = _ask(provider, symbol, start, days[min(OVERLAP, len(days)) - 1])
        reason = _disagreement(held.table, early.table)
        if reason:
            return None, reason
        covered = early.table["date"][0] if early.note else start
        stamp = now.isoformat(timespec="seconds")
        grown = replace(grown, table=_joined(grown.table, early.table), start=covered, fetched_at=stamp)
    return grown, ""


def _joined(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([one, other]).unique(subset="date", keep="first").sort("date")


def _disagreement(held: pl.DataFrame, answer: pl.DataFrame) -> str:
    """Why an answer cannot be joined to what is held; empty where it can."""
    first, last = answer["date"][0], answer["date"][-1]
    ours = held.filter(pl.col("date").is_between(first, last))
    theirs = answer.filter(pl.col("date").is_between(held["date"][0], held["date"][-1]))
    if ours.is_empty() or ours["date"].to_list() != theirs["date"].to_list():
        return "the days of the overlap differ"
    for name in ("adjusted_close", "open", "high", "low", "close", "volume"):
        there, here = theirs[name], ours[name]
        same = (there - here).abs() <= 1e-9 * here.abs()
        differs = (~same.fill_null(value=False)) & ~(there.is_null() & here.is_null())
        if differs.any():
            place = int(differs.arg_max() or 0)
            what = "a later split or dividend" if name == "adjusted_close" else "a correction"
            return f"{name} of {ours['date'][place]} was {here[place]} and is {there[place]} now ({what})"
    return ""
