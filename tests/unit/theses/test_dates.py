from __future__ import annotations

from datetime import date

import pytest

from finseek.theses.dates import parse_date
from finseek.theses.refuse import Refused

DAY = date(2024, 2, 13)


@pytest.mark.parametrize(
    "text",
    [
        "2024-02-13",
        "2024/02/13",
        "2024/2/13",
        "20240213",
        "13.02.2024",
        "02/13/2024",
        "13/02/2024",
        "13-02-2024",
        "02-13-2024",
        " 2024-02-13\n",
        "2024-02-13T00:00:00",
        "2024-02-13 00:00",
    ],
)
@pytest.mark.parametrize("order", [None, "dmy", "mdy"])
def test_one_meaning(text: str, order: str | None) -> None:
    assert parse_date(text, order) == DAY


@pytest.mark.parametrize("text", ["03/04/2024", "03-04-2024", "3/4/2024"])
def test_two_meanings(text: str) -> None:
    with pytest.raises(Refused, match="ambiguous_date"):
        parse_date(text)
    assert parse_date(text, "dmy") == date(2024, 4, 3)
    assert parse_date(text, "mdy") == date(2024, 3, 4)


@pytest.mark.parametrize("text", ["05/05/2024", "05-05-2024"])
def test_day_and_month_alike(text: str) -> None:
    assert parse_date(text) == date(2024, 5, 5)


def test_points_mean_day_first() -> None:
    assert parse_date("03.04.2024", "mdy") == date(2024, 4, 3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2023-02-29", "impossible_date"),
        ("2024-13-01", "impossible_date"),
        ("31/31/2024", "impossible_date"),
        ("00000101", "impossible_date"),
        ("24-02-13", "unreadable_date"),
        ("2024-W07-2", "unreadable_date"),
        ("2024-02-13T16:00:00", "unreadable_date"),
        ("2024-02-13T00:00:00Z", "unreadable_date"),
        ("13 Feb 2024", "unreadable_date"),
        ("2024-02/13", "unreadable_date"),
        ("٢٠٢٤-٠٢-١٣", "unreadable_date"),
        ("12345-01-01", "unreadable_date"),
        ("", "unreadable_date"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        parse_date(text, "dmy")
