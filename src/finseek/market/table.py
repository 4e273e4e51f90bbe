"""Price tables on disk: Parquet or CSV in, checked; Parquet out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from finseek.core.artifacts import atomic_file
from finseek.core.errors import InputError
from finseek.core.sessions import Sessions
from finseek.core.tables import read_table
from finseek.market.options import COLUMNS, PricesOptions
from finseek.market.prices import BAR, Prices

PRICE_COLUMNS = ("open", "high", "low", "close", "adjusted_close")
NUMBERS = (*PRICE_COLUMNS, "volume")


def load_prices(source: Path, options: PricesOptions | None = None, tickers: Sequence[str] | None = None) -> Prices:
    """Read a price table.

    Args:
        source: .parquet, .csv or .csv.gz with one row a ticker and day; or a folder of such Parquet files.
        options: benchmark, names of columns, range of days.
        tickers: the universe; all but the benchmark where None.

    Raises:
        InputError: missing file or column, nothing left, unknown ticker, (date, ticker) twice, a text where a number
            or date belongs, a price that is not above 0 or a bar with holes.
    """
    options = options or PricesOptions()
    return to_prices(read_price_table(source, options), tickers, options.benchmark, str(source))


def read_price_table(source: Path, options: PricesOptions | None = None) -> pl.DataFrame:
    """The rows of a price table, checked, by ticker and date; columns as ``options.COLUMNS``, numbers float64.

    Raises:
        InputError: as ``load_prices``.
    """
    table = read_rows(source, options or PricesOptions())
    check_rows(table, str(source))
    return table.sort("ticker", "date")


def read_rows(source: Path, options: PricesOptions) -> pl.DataFrame:
    """The rows of a price table as they are: typed, within the days of the options, unchecked otherwise.

    Raises:
        InputError: missing file or column, a text where a number or date belongs, or no row.
    """
    table = _typed(_named(_read(source), source, options), source, options)
    if options.start:
        table = table.filter(pl.col("date") >= options.start)
    if options.end:
        table = table.filter(pl.col("date") <= options.end)
    table = table.filter(pl.any_horizontal(pl.col(PRICE_COLUMNS).is_not_null()))
    if table.is_empty():
        raise InputError(f"{source} holds no prices{_range(options)}: give a table with rows")
    return table


def _range(options: PricesOptions) -> str:
    return f" from {options.start or 'the start'} to {options.end or 'the end'}" if options.start or options.end else ""


def _read(source: Path) -> pl.DataFrame:
    if not source.is_dir():
        return read_table(source, "price table")
    files = sorted(source.glob("*.parquet"))
    if not files:
        raise InputError(f"folder {source} holds no .parquet file: give a price table")
    try:
        return pl.concat([read_table(file, "price table") for file in files], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise InputError(f"the files of {source} are no one table: {str(error)[:200]}") from None


def _named(table: pl.DataFrame, source: Path, options: PricesOptions) -> pl.DataFrame:
    names = {column: options.columns.get(column, column) for column in COLUMNS}
    for column, name in names.items():
        if name not in table.columns:
            hint = "; map it to close if the prices are adjusted already" if column == "adjusted_close" else ""
            raise InputError(
                f"{source} has no column {name!r}, only {', '.join(table.columns)}: "
                f"set prices.columns.{column} to its name there{hint}"
            )
    return table.select(pl.col(name).alias(column) for column, name in names.items())


def _typed(table: pl.DataFrame, source: Path, options: PricesOptions) -> pl.DataFrame:
    day = table.schema["date"]
    date = pl.col("date")
    if day == pl.String:
        date = date.str.strip_chars().str.to_date(options.date_format, strict=False)
    elif isinstance(day, pl.Datetime):
        table = table.with_columns(date.dt.replace_time_zone(None))
        if table.filter(date.dt.time() != pl.time(0)).height:
            raise InputError(f"{source} has times of the day in its dates: give a table with one bar a day")
        date = date.dt.date()
    elif day != pl.Date:
        raise InputError(f"{source} has dates of type {day}: give dates or text such as 2024-12-31")
    typed = table.select(
        date,
        pl.col("ticker").cast(pl.String),
        *(pl.col(name).cast(pl.Float64, strict=False) for name in NUMBERS),
    )
    for name in ("date", *NUMBERS):
        bad = table.filter(typed[name].is_null() & table[name].is_not_null())
        if bad.height:
            value, rule = bad[name][0], f"a date of the form {options.date_format}" if name == "date" else "a number"
            raise InputError(f"{source}: {name} {str(value)[:40]!r} of {bad['ticker'][0]} is not {rule}: correct it")
    for name in ("date", "ticker"):
        if typed[name].null_count():
            raise InputError(f"{source}: {typed[name].null_count()} rows have no {name}: correct or remove them")
    return typed.with_columns(pl.col(NUMBERS).fill_nan(None))


def check_rows(table: pl.DataFrame, source: str) -> None:
    """Refuse rows that no table of daily bars can hold.

    Raises:
        InputError: naming the first such row and how many there are.
    """
    twice = table.filter(pl.struct("date", "ticker").is_duplicated())
    if twice.height:
        first = twice.sort("ticker", "date").row(0, named=True)
        raise InputError(
            f"{source}: {first['ticker']} has several rows for {first['date']} ({twice.height} such rows): keep one"
        )
    for name in PRICE_COLUMNS:
        _refuse(table, source, name, pl.col(name).is_null(), "is missing while other prices of the bar are there")
        _refuse(table, source, name, ~(pl.col(name) > 0) | pl.col(name).is_infinite(), "is not a price above 0")
    _refuse(
        table, source, "volume", ~(pl.col("volume") >= 0) | pl.col("volume").is_infinite(), "is not a count of shares"
    )


def _refuse(table: pl.DataFrame, source: str, name: str, wrong: pl.Expr, rule: str) -> None:
    bad = table.filter(wrong)
    if bad.height:
        row = bad.row(0, named=True)
        more = f" ({bad.height} such rows)" if bad.height > 1 else ""
        raise InputError(
            f"{source}: {name} {row[name]} of {row['ticker']} on {row['date']} {rule}{more}: correct or remove the bar"
        )


def to_prices(
    table: pl.DataFrame, tickers: Sequence[str] | None = None, benchmark: str | None = None, source: str = "the table"
) -> Prices:
    """Dense arrays from checked rows.

    Args:
        table: as ``read_price_table`` returns it.
        tickers: the universe; all but the benchmark where None.
        benchmark: ticker to keep apart; it adds no session.
        source: how errors call the table.

    Raises:
        InputError: a ticker or the benchmark is not in the table, or nothing is left.
    """
    there = set(table["ticker"].unique())
    names = sorted(set(tickers) if tickers is not None else there - {benchmark})
    if not names:
        raise InputError(f"{source} leaves no ticker for the universe: name tickers that it holds")
    for name in (*names, *([benchmark] if benchmark else [])):
        if name not in there:
            spelt = {ticker.upper(): ticker for ticker in sorted(there)}
            near = [spelt[found] for found in get_close_matches(name.upper(), spelt, n=1)]
            raise InputError(
                f"{source} has no prices of ticker {name!r}"
                f"{f' (the nearest is {near[0]})' if near else ''}: add them, or leave the ticker out"
            )
    universe = table.filter(pl.col("ticker").is_in(names))
    sessions = Sessions.of(universe["date"].unique().to_numpy())
    dense = _dense(universe, sessions, names)
    if benchmark is None:
        return dense
    apart = table.filter((pl.col("ticker") == benchmark) & pl.col("date").is_in(universe["date"].unique().implode()))
    return replace(dense, benchmark=_dense(apart, sessions, [benchmark]))


def _dense(rows: pl.DataFrame, sessions: Sessions, names: Sequence[str]) -> Prices:
    row = sessions.index(rows["date"].to_numpy())
    column = rows["ticker"].cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int64)

    def spread(name: str) -> NDArray[np.float64]:
        array = np.full((len(sessions), len(names)), np.nan)
        array[row, column] = rows[name].to_numpy()
        return array

    o, h, l, c, v, a = map(spread, BAR)  # noqa: E741
    return Prices(sessions, tuple(names), o, h, l, c, v, a)


def to_table(prices: Prices) -> pl.DataFrame:
    """The rows of a table, the benchmark's after the others; by ticker and date."""
    parts = []
    benchmark = prices.benchmark
    apart = benchmark is not None and benchmark.tickers[0] not in prices.tickers
    for part in (prices, benchmark if apart else None):
        if part is None:
            continue
        column, row = np.nonzero(part.has_bar.T)
        parts.append(
            pl.DataFrame(
                {
                    "date": part.sessions.dates[row],
                    "ticker": np.array(part.tickers)[column],
                    **{name: getattr(part, name)[row, column] for name in COLUMNS[2:]},
                }
            ).with_columns(pl.col("volume").fill_nan(None))
        )
    return pl.concat(parts)


def write_prices(prices: Prices, path: Path) -> None:
    """Write a table, the benchmark included, as the Parquet file that ``load_prices`` reads; whole or not at all."""
    with atomic_file(path) as partial:
        to_table(prices).write_parquet(partial, compression="zstd", statistics=False)
