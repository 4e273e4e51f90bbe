"""Theses from tables: JSON lines, CSV and Parquet, with the columns of a thesis or instruction/input/output."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from typing import Any

import orjson

from finseek.theses.clean import KNOWN, Raw, field_name
from finseek.theses.options import ThesesOptions
from finseek.theses.refuse import Refused, shown

LONGEST_CELL = 2**31 - 1  # the csv module's own limit of 131,072 would end a file at one long text
OURS = frozenset({"uid", "source_file", "index", "salvaged"})


def jsonl_theses(content: bytes, name: str, options: ThesesOptions) -> Iterator[Raw]:
    """One JSON object a line; a line that is none is a record with a problem. Blank lines are skipped."""
    index = 0
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield _broken(line, name, index, number, Refused("malformed_json", f"{error}: write one object a line"))
        else:
            if isinstance(row, dict) and (key := _repeated(line, row)):
                problem = Refused("duplicate_field", f"{shown(key)} occurs twice in the row: keep one")
                yield _broken(line, name, index, number, problem)
            elif isinstance(row, dict):
                yield row_thesis(row, name, index, number)
            else:
                problem = Refused("malformed_json", f"{type(row).__name__} {shown(row)} is no object")
                yield _broken(line, name, index, number, problem)
        index += 1
    if index == 0:
        raise Refused("empty_file", f"{name} is empty: remove it")


def csv_theses(content: bytes, name: str, options: ThesesOptions) -> Iterator[Raw]:
    """Comma-separated values, UTF-8, with a header line."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Refused("bad_encoding", f"{name} is not UTF-8 ({error.reason}): save it as UTF-8", line) from None
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    index = 0
    try:
        for cells in reader:
            if not cells:
                continue
            if header is None:
                header = _header(cells, name)
                continue
            if len(cells) == len(header):
                yield row_thesis(dict(zip(header, cells, strict=True)), name, index, reader.line_num)
            else:
                problem = Refused("ragged_row", f"{len(cells)} cells under {len(header)} columns: quote or complete it")
                yield _broken(",".join(cells).encode(), name, index, reader.line_num, problem)
            index += 1
    except csv.Error as error:
        problem = Refused("malformed_csv", f"{name}: {error}; what follows was not read")
        yield _broken(b"", name, index, reader.line_num, problem)
        index += 1
    if header is None or index == 0:
        raise Refused("empty_file", f"{name} holds no rows: remove it")


def parquet_theses(content: bytes, name: str, options: ThesesOptions) -> Iterator[Raw]:
    """The rows of a Parquet file, in its order."""
    import polars as pl

    broken = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)
    try:
        table = pl.read_parquet(io.BytesIO(content))
        _header(table.columns, name)
    except broken as error:
        raise Refused("malformed_parquet", f"{name} cannot be read ({shown(error, 120)}): write it again") from None
    if table.is_empty():
        raise Refused("empty_file", f"{name} holds no rows: remove it")
    for index, row in enumerate(table.iter_rows(named=True)):
        yield row_thesis(row, name, index, None)


def row_thesis(row: Mapping[str, Any], name: str, index: int, line: int | None) -> Raw:
    """One row as a raw record; null is absence, a number or a nested value an indicator as JSON."""
    raw = Raw({}, {}, name, index, line)
    for column, value in row.items():
        field = field_name(str(column))
        if value is None or field in OURS:
            continue
        if field == "indicators" and isinstance(value, dict):
            for key, inner in value.items():
                if inner is not None:
                    raw.indicators[str(key)] = _plain(inner)
        elif field not in KNOWN:
            raw.indicators[field] = _plain(value)
        elif field in raw.fields:
            raw.problem = Refused("duplicate_field", f"{field} occurs twice in the row: keep one")
            raw.indicators[str(column)] = _plain(value)
        elif isinstance(value, str):
            raw.fields[field] = value
        elif field == "as_of_date" and isinstance(value, (date, datetime, int)) and not isinstance(value, bool):
            raw.fields[field] = _day(value)
        else:
            raw.problem = Refused("wrong_type", f"{field} is {shown(value)}, not text: write it as text")
            raw.indicators[str(column)] = _plain(value)
    return raw


def _repeated(line: bytes, row: Mapping[str, Any]) -> str | None:
    """A key that an object names twice; of two values the parser would keep the last and say nothing."""
    if all(line.count(b'"%b"' % key.encode()) <= 1 for key in row):
        return None
    keys = Counter(key for key, _ in json.loads(line, object_pairs_hook=list))
    return next((key for key, count in keys.items() if count > 1), None)


def _day(value: date | int) -> str:
    if isinstance(value, datetime):
        midnight = value.time() == time() and value.tzinfo is None
        return value.date().isoformat() if midnight else value.isoformat()
    return value.isoformat() if isinstance(value, date) else str(value)


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value, default=str).decode()
    except (orjson.JSONEncodeError, UnicodeDecodeError):
        return str(value)


def _header(columns: list[str], name: str) -> list[str]:
    names = [field_name(column) for column in columns]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise Refused("duplicate_column", f"{name} has the column {shown(twice[0])} twice: keep one")
    return columns


def _broken(line: bytes, name: str, index: int, number: int | None, problem: Refused) -> Raw:
    return Raw({}, {"line": line.decode("utf-8", "backslashreplace")}, name, index, number, problem)
