"""Looking for what is wrong with a price table, without refusing it: every rule runs, everything found is listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from finseek.market.check_rules import (
    Finding,
    bad_values,
    duplicates,
    edges,
    factors,
    gaps,
    jumps,
    moves,
    shape,
    stale,
)
from finseek.market.options import PricesOptions
from finseek.market.quotes import Quote, QuoteCounts, compare_quotes
from finseek.market.table import PRICE_COLUMNS, read_rows


@dataclass(frozen=True)
class CheckReport:
    """Everything found, by ticker and day.

    Attributes:
        findings: the list.
        rows: rows of the table.
        tickers: tickers in it.
        quotes: what became of the quoted closes; None where none were given.
    """

    findings: list[Finding]
    rows: int
    tickers: int
    quotes: QuoteCounts | None = None

    @property
    def errors(self) -> int:
        """Number of errors: the exit code is 1 where it is above 0."""
        return sum(finding.severity == "error" for finding in self.findings)

    def counts(self) -> dict[str, int]:
        """Findings by kind."""
        return dict(sorted(Counter(finding.kind for finding in self.findings).items()))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "rows": self.rows,
            "tickers": self.tickers,
            "errors": self.errors,
            "warnings": len(self.findings) - self.errors,
            "counts": self.counts(),
            "quotes": self.quotes.to_json() if self.quotes else None,
            "findings": [finding.to_json() for finding in self.findings],
        }


def check_file(source: Path, options: PricesOptions | None = None, quotes: Iterable[Quote] = ()) -> CheckReport:
    """Check a price file.

    Args:
        source: as ``load_prices`` takes it.
        options: names of columns, range of days, calendar.
        quotes: closes that theses quote.

    Raises:
        InputError: the file cannot be read as a table of prices at all.
    """
    options = options or PricesOptions()
    return check_table(read_rows(source, options), options.calendar, quotes)


def check_table(table: pl.DataFrame, calendar: str | None = "XNYS", quotes: Iterable[Quote] = ()) -> CheckReport:
    """Check rows with the columns of ``options.COLUMNS``.

    Args:
        table: the rows, in any order.
        calendar: exchange calendar whose sessions the days are compared with; None compares with nothing.
        quotes: closes that theses quote.

    Raises:
        InputError: there is no calendar of that name.
    """
    table = table.with_row_index("row").sort("ticker", "date", "row")
    findings = [*duplicates(table), *bad_values(table)]
    sound = table.unique(["ticker", "date"], keep="first", maintain_order=True).filter(
        pl.all_horizontal(pl.col(name) > 0 for name in PRICE_COLUMNS),
        pl.all_horizontal(pl.col(PRICE_COLUMNS).is_finite()),
    )
    moved = moves(sound)
    for rule in (shape, stale, jumps, factors):
        findings += rule(moved)
    if calendar:
        findings += gaps(table, calendar)
    findings += edges(table)
    quotes = list(quotes)
    counts = None
    if quotes:
        counts, notes = compare_quotes(sound, quotes)
        findings += [Finding(*note) for note in notes]
    order = {"error": 0, "warning": 1}
    findings.sort(key=lambda found: (order[found.severity], found.ticker, found.date or date.min, found.kind))
    return CheckReport(findings, table.height, table["ticker"].n_unique(), counts)
