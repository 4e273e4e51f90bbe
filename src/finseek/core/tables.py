"""Tables that people bring, CSV or Parquet: refused in one line where a cell could be lost or misread."""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime, time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from finseek.core.errors import InputError

if TYPE_CHECKING:
    import polars as pl

ENDINGS = (".csv", ".csv.gz", ".parquet")
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")
HEAD = 65_536  # bytes that tell encoding, ends of lines and separator
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_table(path: Path, what: str) -> pl.DataFrame:
    """Read a CSV, every cell as text, or a Parquet file.

    Args:
        path: the file; its ending says what it is.
        what: how errors call it, such as ``signals file``.

    Raises:
        InputError: the file is missing, unreadable or of another ending, and what :func:`read_csv` refuses.
    """
    import polars as pl

    if not path.is_file():
        raise InputError(f"{what} {path} does not exist: give a {' or '.join(ENDINGS)} file")
    name = path.name.lower()
    if not name.endswith(ENDINGS):
        raise InputError(f"{what} {path} ends in none of {', '.join(ENDINGS)}: convert it, or name it as what it is")
    if not name.endswith(".parquet"):
        return read_csv(path, what)
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{what} {path} cannot be read: {str(error).splitlines()[0][:200]}") from None


def read_csv(path: Path, what: str) -> pl.DataFrame:
    """Read a CSV of UTF-8 (plain or .gz), every cell as text and null where it is empty.

    Args:
        path: the file, which exists.
        what: how errors call it, such as ``signals file``.

    Raises:
        InputError: another encoding, separator or end of line; a column twice; a row with too many or too few cells;
            nothing at all.
    """
    import polars as pl

    name = f"{what} {path}"
    try:
        _check_head(path, name)
        table = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.NoDataError:
        raise InputError(f"{name} is empty") from None
    except (pl.exceptions.PolarsError, csv.Error, OSError, EOFError) as error:
        if "utf-8" in str(error):
            raise InputError(f"{name} is not UTF-8: save it as UTF-8") from None
        if "more fields" in str(error):
            raise InputError(f"{name} has a row with more cells than its header: quote what holds a comma") from None
        raise InputError(f"{name} cannot be read as CSV: {str(error).splitlines()[0][:200]}") from None
    if table.width and table[:, -1].null_count():  # polars fills a row that was cut short
        _refuse_short_rows(path, name)
    return table


def _check_head(path: Path, name: str) -> None:
    with _opened(path) as file:
        head = file.read(HEAD)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head:
        raise InputError(f"{name} is UTF-16 or no text: save it as UTF-8")
    if b"\r" in head and b"\n" not in head:
        raise InputError(f"{name} ends its lines with CR alone: save it with LF or CRLF")
    line = head.partition(b"\n")[0].decode("utf-8-sig", "replace")
    columns = next(csv.reader([line]), [])
    if len(columns) == 1:
        for separator, word in SEPARATORS.items():
            if separator in line:
                raise InputError(f"{name} is separated by {word}: save it with commas")
    twice = [column for column, count in Counter(columns).items() if column and count > 1]
    if twice:
        raise InputError(f"{name} has several columns {twice[0]!r}: keep one")


def _refuse_short_rows(path: Path, name: str) -> None:
    with _opened(path) as file, suppress(csv.Error):  # a cell longer than csv allows: polars has read it, so let it be
        rows = csv.reader(line.decode("utf-8-sig", "replace") for line in file)
        width = len(next(rows, []))
        for row in rows:
            if 0 < len(row) < width:
                raise InputError(
                    f"{name}, line {rows.line_num}: {len(row)} cells where the header has {width}: complete the row; "
                    "a cell that is empty on purpose has its comma"
                )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        yield file


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
