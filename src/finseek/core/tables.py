"""CSV files that people bring: read as text, and refused in one line where a cell could be lost or misread."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from finseek.core.errors import InputError

if TYPE_CHECKING:
    import polars as pl

HEAD = 65_536  # bytes that tell encoding, ends of lines and separator
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


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
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        yield file
