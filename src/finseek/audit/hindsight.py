"""Hindsight in the words of a thesis: a date after its as-of date, or a price that was only seen later."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from finseek.core.options import Options
from finseek.market import Prices
from finseek.theses import Thesis

Kind = Literal["date_after_as_of", "price_seen_later", "known_to_teacher"]
Floats = NDArray[np.float64]

_MONTHS = {name: place for place, name in enumerate(
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)}  # fmt: skip
_MONTH = (
    r"(?P<month>Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?"
    r"|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>(?:19|20)\d{2})"

# Each form of a date; one without a day stands for the first of its month, the earliest that it can mean.
DATE_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"\b{_MONTH} {_DAY},? {_YEAR}\b",
        rf"\b{_DAY} (?:of )?{_MONTH},? {_YEAR}\b",
        rf"\b{_YEAR}[-/](?P<month>\d{{1,2}})[-/]{_DAY}\b",
        rf"\b(?P<month>\d{{1,2}})/(?P<day>\d{{1,2}})/{_YEAR}\b",
        rf"\b(?P<day>\d{{1,2}})\.(?P<month>\d{{1,2}})\.{_YEAR}\b",
        rf"\b{_MONTH},? {_YEAR}\b",
    )
)
_PRICE = re.compile(
    r"(?:\$|USD) ?(?P<price>\d{1,3}(?:,\d{3})+\.\d{2}|\d+\.\d{2})(?![\d%]| ?(?:billion|million|trillion|[BMT]\b))"
)
# A level, an average or money of another kind is no price of a session, and may equal a later one by chance.
_DERIVED = re.compile(
    r"support|resistance|level|range|zone|approximately|around|~"
    r"|SMA|EMA|averag|\bMA\b|VWAP|Bollinger|ATR|MACD|EPS|per share|dividend|earnings|revenue|target|band\b",
    re.IGNORECASE,
)
BEFORE, AFTER = 60, 25
_ANY_YEAR = re.compile(r"(?:19|20)\d\d")
DATE_BEFORE, DATE_AFTER = 25, 6


class HindsightOptions(Options):
    """What the linter looks at."""

    price_horizon: int = Field(default=60, ge=1, description="later sessions whose prices may not be quoted")
    tolerated_days: int = Field(default=0, ge=0, description="a date so many days after the as-of date passes")
    teacher_cutoff: date | None = Field(
        default=None, description="knowledge cutoff of the teacher; theses as of it or before may be hindsight"
    )


class Finding(msgspec.Struct, frozen=True):
    """One place of one thesis that could not be known as of its date."""

    uid: str
    ticker: str
    as_of_date: date
    kind: Kind
    detail: str


def lint_hindsight(
    theses: Iterable[Thesis], prices: Prices | None, options: HindsightOptions | None = None
) -> list[Finding]:
    """All findings, in the order of the theses.

    A quoted amount is a finding if it is no open, high, low or close of the ticker up to the as-of date, raw or
    adjusted, and is one within the next ``price_horizon`` sessions. Averages, targets and amounts per share are not
    looked at.

    Args:
        theses: any.
        prices: the table, or None to look at dates alone.
        options: what is looked at.
    """
    options = options or HindsightOptions()
    findings = []
    seen: dict[str, _FirstSeen] = {}
    for thesis in theses:
        text = f"{thesis.reasoning}\n{thesis.support}"
        details = [("date_after_as_of", detail) for detail in later_dates(text, thesis.as_of_date, options)]
        if prices is not None and thesis.ticker in prices.tickers:
            if thesis.ticker not in seen:
                seen[thesis.ticker] = _first_seen(prices, thesis.ticker)
            after = np.searchsorted(prices.sessions.dates, np.datetime64(thesis.as_of_date, "D"), side="right")
            quoted = _later_prices(text, thesis, int(after), seen[thesis.ticker], options)
            details += [("price_seen_later", detail) for detail in quoted]
        for kind, detail in details:
            findings.append(Finding(thesis.uid, thesis.ticker, thesis.as_of_date, kind, detail))  # type: ignore[arg-type]
    return findings


def known_to_teacher(theses: Iterable[Thesis], cutoff: date | None) -> list[Finding]:
    """A mark on every thesis as of the knowledge cutoff of its teacher or before, whatever its words say.

    The teacher may have read what came next, and such hindsight leaves no trace that a linter could find.
    """
    if cutoff is None:
        return []
    detail = f"as of the teacher's knowledge cutoff {cutoff} or before: it may have been written with hindsight"
    return [
        Finding(thesis.uid, thesis.ticker, thesis.as_of_date, "known_to_teacher", detail)
        for thesis in theses
        if thesis.as_of_date <= cutoff
    ]


def later_dates(text: str, as_of_date: date, options: HindsightOptions) -> Iterator[str]:
    """Each date in a text that lies after the as-of date; a date without its year is not judged."""
    for year in _ANY_YEAR.finditer(text):
        if int(year[0]) < as_of_date.year:
            continue
        around = max(0, year.start() - DATE_BEFORE), year.end() + DATE_AFTER
        forms = (found for form in DATE_FORMS for found in form.finditer(text, *around))
        found = next((found for found in forms if found.start("year") == year.start()), None)
        day = found and _date_of(found)
        if found and day and (day - as_of_date).days > options.tolerated_days:
            yield f"names {' '.join(found[0].split())}, after the as-of date {as_of_date}"


def summarize(findings: Sequence[Finding], theses: Sequence[Thesis], options: HindsightOptions) -> dict[str, Any]:
    """JSON-able counts: theses looked at, flagged, findings by kind, and theses up to the teacher's cutoff."""
    cutoff = options.teacher_cutoff
    return {
        "theses": len(theses),
        "flagged": len({finding.uid for finding in findings}),
        "findings": dict(sorted(Counter(finding.kind for finding in findings).items())),
        "teacher_cutoff": cutoff.isoformat() if cutoff else None,
        "as_of_teacher_cutoff_or_before": sum(t.as_of_date <= cutoff for t in theses) if cutoff else None,
    }


def _date_of(found: re.Match[str]) -> date | None:
    parts = found.groupdict()
    name = parts["month"]
    month = int(name) if name.isdigit() else _MONTHS[name[:3].lower()]
    try:
        return date(int(parts["year"]), month, int(parts.get("day") or 1))
    except ValueError:
        return None


@dataclass(frozen=True)
class _FirstSeen:
    """The first session at which each price of one ticker, in cents, was an open, high, low or close.

    Attributes:
        raw: as quoted on the day.
        known: raw or adjusted.
    """

    raw: dict[int, int]
    known: dict[int, int]


def _first_seen(prices: Prices, ticker: str) -> _FirstSeen:
    column = prices.column(ticker)
    raw = _first([a[:, column] for a in (prices.open, prices.high, prices.low, prices.close)])
    adjusted = _first(
        [a[:, column] for a in (prices.adjusted_open, prices.adjusted_high, prices.adjusted_low, prices.adjusted_close)]
    )
    never = len(prices.sessions)
    return _FirstSeen(raw, {cents: min(place, adjusted.get(cents, never)) for cents, place in raw.items()})


def _first(columns: Sequence[Floats]) -> dict[int, int]:
    table = np.stack(columns, axis=1)
    places, _ = np.nonzero(np.isfinite(table))
    cents = np.round(table[np.isfinite(table)] * 100).astype(np.int64)
    return dict(zip(cents[::-1].tolist(), places[::-1].tolist(), strict=True))


def _later_prices(text: str, thesis: Thesis, place: int, seen: _FirstSeen, options: HindsightOptions) -> Iterator[str]:
    """Each quoted amount that first appears at a session from ``place`` on, within the horizon."""
    for found in _PRICE.finditer(text):
        cents = round(float(found["price"].replace(",", "")) * 100)
        first = seen.raw.get(cents, -1)
        if place <= first < place + options.price_horizon and seen.known[cents] >= place:
            if not _is_derived(text, found):
                yield f"quotes {found[0]}, a price that {thesis.ticker} first showed after {thesis.as_of_date}"


def _is_derived(text: str, found: re.Match[str]) -> bool:
    """Whether the words around an amount, in its own clause, say that it is no price of a session."""
    before = re.split(r"[\n;]|\. ", text[max(0, found.start() - BEFORE) : found.start()])[-1]
    after = re.split(r"[\n;,]|\. ", text[found.end() : found.end() + AFTER])[0]
    return bool(_DERIVED.search(before) or _DERIVED.search(after))
