"""Reading small tables that people bring: CSV and Parquet, every cell checked by its reader."""

from __future__ import annotations

import re
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import polars as pl

from finseek.core.errors import InputError
from finseek.core.tables import read_csv

_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def read_table(path: Path, what: str) -> pl.DataFrame:
    """Read a CSV (all cells text) or a Parquet file.

    Raises:
        InputError: the file is missing, empty, unreadable, or its ending is neither .csv nor .parquet.
    """
    if not path.is_file():
        raise InputError(f"{what} {path} does not exist")
    if path.suffix.lower() == ".csv":
        return read_csv(path, what)
    if path.suffix.lower() != ".parquet":
        raise InputError(f"{what} {path}: the ending must be .csv or .parquet")
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as problem:
        raise InputError(f"{what} {path} cannot be read: {str(problem).splitlines()[0]}") from None


def to_date(value: Any, name: str) -> date:
    """A cell as a date: a date, a midnight or text of the form 2025-01-31; everything else raises ValueError.

    A time of the day is refused: midnight elsewhere is the evening before here, and would decide a session too early.
    """
    if isinstance(value, datetime) and value.time() == time(0):
        return value.date()
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if isinstance(value, str) and _ISO_DATE.fullmatch(value):
        return date.fromisoformat(value)
    raise ValueError(f"{name} {str(value)!r} is not a date of the form 2025-01-31")
