"""Closes that theses quote, held against the table: the only witness of what was known on the day."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal

import polars as pl

# "closed at $131.21", "closing price of $2,806.87"; the figure must have cents, or it may be rounded.
_CLOSE = re.compile(
    r"\bclos(?:e|ed|es|ing)\b[^$.\d]{0,30}\$\s?(\d{1,3}(?:,\d{3})+\.\d{2}|\d+\.\d{2})(?!\d)", re.IGNORECASE
)
RATIOS = {f"{n}:1": float(n) for n in (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 100)} | {"3:2": 1.5}
NEAR = 0.03
# A quote may lag a day or be wrong: only what repeats speaks against the table.
LEAST, SHARE = 3, 0.1

Note = tuple[str, Literal["error", "warning"], str, date | None, str]


@dataclass(frozen=True)
class Quote:
    """A close that somebody quoted as of a day."""

    ticker: str
    date: date
    close: float


@dataclass(frozen=True)
class QuoteCounts:
    """What became of the quotes; the last three add up to the first.

    Attributes:
        quotes: how many there were.
        matched: equal to the close of the day to the cent.
        differing: not equal.
        no_bar: the table has no bar on the day.
    """

    quotes: int
    matched: int
    differing: int
    no_bar: int

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def quoted_close(text: str) -> float | None:
    """The first close that a text quotes in dollars and cents; None where it quotes none."""
    found = _CLOSE.search(text)
    return float(found.group(1).replace(",", "")) if found else None


def likely_split(ratio: float) -> str:
    """Name of the split whose ratio is within 3 %: ``10:1`` for 10, ``1:10`` for 0.1; empty where there is none."""
    for name, value in RATIOS.items():
        if abs(ratio / value - 1) < NEAR:
            return name
        if abs(ratio * value - 1) < NEAR:
            return ":".join(reversed(name.split(":")))
    return ""


def compare_quotes(bars: pl.DataFrame, quotes: Sequence[Quote]) -> tuple[QuoteCounts, list[Note]]:
    """Count quotes that match the raw close, and note tickers whose quotes differ by a split, or mostly.

    Args:
        bars: ticker, date and close of the table.
        quotes: what was quoted.
    """
    close = {(row[0], row[1]): row[2] for row in bars.select("ticker", "date", "close").iter_rows()}
    matched: dict[str, int] = defaultdict(int)
    differing: dict[str, list[tuple[Quote, float]]] = defaultdict(list)
    no_bar = 0
    for quote in quotes:
        here = close.get((quote.ticker, quote.date))
        if here is None:
            no_bar += 1
        elif abs(quote.close - here) < 0.0051 + 1e-9 * here:
            matched[quote.ticker] += 1
        else:
            differing[quote.ticker].append((quote, here))
    notes = [note for ticker, pairs in sorted(differing.items()) for note in _notes(ticker, pairs, matched[ticker])]
    counts = QuoteCounts(len(quotes), sum(matched.values()), sum(map(len, differing.values())), no_bar)
    return counts, notes


def _notes(ticker: str, pairs: Sequence[tuple[Quote, float]], matched: int) -> list[Note]:
    total = len(pairs) + matched
    by_split: dict[str, list[tuple[Quote, float]]] = defaultdict(list)
    for quote, here in pairs:
        split = likely_split(quote.close / here)
        if split:
            by_split[split].append((quote, here))
    notes: list[Note] = []
    for split, found in sorted(by_split.items()):
        if len(found) >= LEAST and len(found) >= SHARE * total:
            quote, here = found[0]
            message = (
                f"{len(found)} of {total} quoted closes are {split} times the table's, as {quote.close:g} against "
                f"{here:g}: its raw prices were divided by a later split"
            )
            notes.append(("quotes", "error", ticker, quote.date, message))
    if not notes and len(pairs) >= LEAST and len(pairs) > total / 2:
        quote, here = pairs[0]
        message = f"{len(pairs)} of {total} quoted closes differ from the table's, as {quote.close:g} against {here:g}"
        notes.append(("quotes", "warning", ticker, quote.date, message))
    return notes
