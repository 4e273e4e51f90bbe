"""As-of dates in the ways in which they occur; an ambiguous one is refused."""

from __future__ import annotations

import re
from datetime import date
from typing import Literal

from finseek.theses.refuse import Refused, shown

DateOrder = Literal["dmy", "mdy"]

_YEAR_FIRST = re.compile(r"(\d{4})([-/])(\d{1,2})\2(\d{1,2})(?:[T ]00:00(?::00(?:\.0+)?)?)?", re.ASCII)
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})", re.ASCII)
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})", re.ASCII)


def parse_date(text: str, order: DateOrder | None = None) -> date:
    """Read one date.

    ``YYYY-MM-DD``, ``YYYY/MM/DD``, ``YYYYMMDD`` and ``DD.MM.YYYY`` mean one day. ``03/04/2024`` and ``03-04-2024``
    mean two; they are read by ``order``, and refused without it. A part above 12 is a day whatever the order.

    Raises:
        Refused: ``unreadable_date``, ``ambiguous_date`` or ``impossible_date``.
    """
    text = text.strip()
    if found := _YEAR_FIRST.fullmatch(text):
        return _date(int(found[1]), int(found[3]), int(found[4]), text)
    if found := _COMPACT.fullmatch(text):
        return _date(int(found[1]), int(found[2]), int(found[3]), text)
    if found := _YEAR_LAST.fullmatch(text):
        first, separator, second, year = int(found[1]), found[2], int(found[3]), int(found[4])
        if separator == "." or first > 12 or first == second:
            return _date(year, second, first, text)
        if second > 12:
            return _date(year, first, second, text)
        if order is None:
            raise Refused(
                "ambiguous_date", f"date {shown(text)} may be day or month first: set theses.date_order to dmy or mdy"
            )
        day, month = (first, second) if order == "dmy" else (second, first)
        return _date(year, month, day, text)
    raise Refused("unreadable_date", f"date {shown(text)} is in no known format: write YYYY-MM-DD")


def _date(year: int, month: int, day: int, text: str) -> date:
    try:
        return date(year, month, day)
    except ValueError:
        raise Refused("impossible_date", f"date {shown(text)} is in no calendar: correct it") from None
