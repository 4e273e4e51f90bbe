"""The rules of ``prices check``, one function each: rows in, findings out.

Legend: r adjusted log return of a bar, g log change of adjusted_close / close, s robust daily volatility of the ticker
(1.4826 x median absolute deviation of r, at least half a per cent).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from math import exp, log
from typing import Any, Literal

import polars as pl

from finseek.core.errors import InputError
from finseek.market.quotes import likely_split
from finseek.market.table import PRICE_COLUMNS

Severity = Literal["error", "warning"]
JUMP, JUMP_SIGMAS = log(1.3), 12.0  # earnings of large companies stay below one or the other
SPIKE_SIGMAS = 8.0
DIVIDEND = 0.06  # a larger payment must show in the raw price
FACTOR_NOISE = 2e-4  # adjusted prices are often rounded, or stored as float32
STALE_CLOSES = 5
MARGIN = timedelta(days=30)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or looks it.

    Attributes:
        kind: name of the rule.
        severity: an error is wrong whatever the company did; a warning may have happened.
        ticker: whose.
        date: first day.
        message: value and rule.
    """

    kind: str
    severity: Severity
    ticker: str
    date: date | None
    message: str

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "date": self.date.isoformat() if self.date else None}


def _list(rows: pl.DataFrame, kind: str, severity: Severity, message: Callable[[dict[str, Any]], str]) -> list[Finding]:
    return [Finding(kind, severity, row["ticker"], row["date"], message(row)) for row in rows.iter_rows(named=True)]


def duplicates(table: pl.DataFrame) -> list[Finding]:
    """Days for which a ticker has several rows."""
    twice = table.group_by("ticker", "date").len().filter(pl.col("len") > 1)
    return _list(twice, "duplicate", "error", lambda row: f"{row['len']} rows for one day")


def bad_values(table: pl.DataFrame) -> list[Finding]:
    """Prices and volumes that cannot be."""
    found = []
    for name in PRICE_COLUMNS:
        bad = table.filter(pl.col(name).is_null() | ~(pl.col(name) > 0) | ~pl.col(name).is_finite())
        found += _list(bad, "bad_price", "error", lambda row, name=name: f"{name} is {row[name]}, not above 0")  # type: ignore[misc]
    volume = pl.col("volume")
    bad = table.filter(~(volume >= 0) | ~volume.is_finite())
    found += _list(bad, "bad_volume", "error", lambda row: f"volume is {row['volume']}, no count of shares")
    empty = table.filter((volume == 0) | volume.is_null())
    return found + _list(empty, "no_volume", "warning", lambda row: f"volume is {row['volume']}")


def moves(sound: pl.DataFrame) -> pl.DataFrame:
    """The rows with r, the next r, g, s, and whether a bar repeats the one before it."""
    moves = sound.with_columns(
        r=pl.col("adjusted_close").log().diff().over("ticker"),
        g=(pl.col("adjusted_close") / pl.col("close")).log().diff().over("ticker"),
        same_bar=pl.all_horizontal(
            (pl.col(name).diff() == 0).over("ticker") for name in ("open", "high", "low", "close", "volume")
        ),
        same_close=(pl.col("close").diff() == 0).over("ticker"),
    ).with_columns(next_r=pl.col("r").shift(-1).over("ticker"))
    deviation = (pl.col("r") - pl.col("r").median().over("ticker")).abs().median().over("ticker")
    return moves.with_columns(s=pl.max_horizontal(1.4826 * deviation, pl.lit(0.005)))


def shape(moves: pl.DataFrame) -> list[Finding]:
    """Bars whose prices contradict one another."""
    high, low, slack = pl.col("high"), pl.col("low"), 1e-6 * pl.col("close")
    found = _list(
        moves.filter(high < low), "high_below_low", "error", lambda row: f"high {row['high']} is below low {row['low']}"
    )
    for name in ("open", "close"):
        outside = moves.filter((high >= low) & ((pl.col(name) > high + slack) | (pl.col(name) < low - slack)))
        found += _list(
            outside,
            "outside_range",
            "error",
            lambda row, name=name: f"{name} {row[name]} is not between low {row['low']} and high {row['high']}",  # type: ignore[misc]
        )
    return found


def stale(moves: pl.DataFrame) -> list[Finding]:
    """Bars that repeat the one before, and closes that do not move."""
    copies = _runs(moves, "same_bar", 1)
    found = _list(copies, "stale", "error", lambda row: f"{row['len']} bars repeat the one before them")
    closes = _runs(moves.filter(~pl.col("same_bar").fill_null(value=False)), "same_close", STALE_CLOSES - 1)
    return found + _list(closes, "stale_close", "warning", lambda row: f"the close is the same {row['len'] + 1} times")


def _runs(moves: pl.DataFrame, name: str, least: int) -> pl.DataFrame:
    """Runs of true of at least so many bars: ticker, first day, length."""
    flag = pl.col(name).fill_null(value=False)
    return (
        moves.with_columns(run=flag.rle_id().over("ticker"))
        .filter(flag)
        .group_by("ticker", "run")
        .agg(pl.col("date").first(), pl.len())
        .filter(pl.col("len") >= least)
    )


def jumps(moves: pl.DataFrame) -> list[Finding]:
    """Moves that no large company makes: far and stayed (a split that was not adjusted, perhaps), or far and back."""
    r, back, s = pl.col("r"), pl.col("next_r"), pl.col("s")
    lesser = pl.min_horizontal(r.abs(), back.abs())
    spike = (r * back < 0) & (lesser > SPIKE_SIGMAS * s) & ((r + back).abs() < 0.3 * r.abs())
    moves = moves.with_columns(spike=spike.fill_null(value=False))
    found = _list(
        moves.filter("spike"), "spike", "error", lambda row: f"moves by {exp(row['r']) - 1:+.1%} and back the next day"
    )
    after = pl.col("spike").shift(1).over("ticker").fill_null(value=False)
    far = (r.abs() > JUMP) & (r.abs() > JUMP_SIGMAS * s)
    for row in moves.filter(far & ~pl.col("spike") & ~after).iter_rows(named=True):
        split = likely_split(exp(-row["r"]))
        moved = f"the adjusted close moves by {exp(row['r']) - 1:+.1%} without a corporate action"
        hint = f"; an unadjusted {split} split?" if split else ""
        found.append(Finding("jump", "error" if split else "warning", row["ticker"], row["date"], moved + hint))
    return found


def factors(moves: pl.DataFrame) -> list[Finding]:
    """Changes of adjusted_close / close that are neither a dividend nor a split that the raw price shows."""
    g, unexplained = pl.col("g"), pl.col("r").abs() > pl.max_horizontal(SPIKE_SIGMAS * pl.col("s"), pl.lit(0.05))
    # A dividend lets the ratio grow a little; only a reverse split lets it fall, and then by a third or more.
    shrinks = (g < -FACTOR_NOISE) & ((g > log(0.75)) | unexplained)
    leaps = (g > DIVIDEND) & unexplained
    return _list(
        moves.filter(shrinks | leaps),
        "ratio",
        "error",
        lambda row: f"adjusted_close / close changes by {exp(row['g']) - 1:+.2%}, and the price shows no reason",
    )


def gaps(table: pl.DataFrame, calendar: str) -> list[Finding]:
    """Sessions of the exchange without a bar between a ticker's first and last, and bars on days without a session."""
    sessions = calendar_sessions(calendar, table["date"].min(), table["date"].max())  # type: ignore[arg-type]
    known = pl.DataFrame({"date": sessions}, schema={"date": pl.Date}).with_row_index("place")
    found = _list(
        table.unique(["ticker", "date"]).join(known, on="date", how="anti"),
        "no_session",
        "error",
        lambda row: f"{calendar} was closed on {row['date']:%A} {row['date']}",
    )
    bars = table.unique(["ticker", "date"]).join(known, on="date").sort("ticker", "date")
    holes = bars.with_columns(missing=pl.col("place").cast(pl.Int64).diff().over("ticker") - 1)
    for row in holes.filter(pl.col("missing") > 0).iter_rows(named=True):
        first = sessions[row["place"] - row["missing"]]
        found.append(
            Finding("gap", "error", row["ticker"], first, f"{row['missing']} sessions of {calendar} are missing")
        )
    return found


def calendar_sessions(name: str, first: date, last: date) -> list[date]:
    """Sessions of an exchange from first to last, both included.

    Raises:
        InputError: there is no calendar of that name, or it does not reach so far.
    """
    # one day is no range to the library
    start, end = max(first, date.min + MARGIN) - MARGIN, min(last, date.max - MARGIN) + MARGIN
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns of pandas's own plans
        import exchange_calendars

        try:
            calendar = exchange_calendars.get_calendar(name, start=start.isoformat(), end=end.isoformat())
        except exchange_calendars.errors.InvalidCalendarName:
            raise InputError(f"prices.calendar {name!r} is no exchange calendar: XNYS, XLON, XTKS …, or null") from None
        except ValueError as error:
            raise InputError(
                f"prices.calendar {name} does not know {first} to {last} ({error}): cut the days, or set it to null"
            ) from None
        days = (stamp.date() for stamp in calendar.sessions)
        return [day for day in days if first <= day <= last]


def edges(table: pl.DataFrame) -> list[Finding]:
    """Tickers that begin later or end earlier than the rest: listed, renamed, delisted, or badly fetched."""
    spans = table.group_by("ticker").agg(first=pl.col("date").min(), last=pl.col("date").max())
    begin, end = str(spans["first"].min()), str(spans["last"].max())
    days = table["date"].unique().sort()
    slack = max(len(days) // 100, 3)
    late = spans.filter(pl.col("first") > days[min(slack, len(days) - 1)]).with_columns(date="first")
    early = spans.filter(pl.col("last") < days[max(len(days) - 1 - slack, 0)]).with_columns(date="last")
    return [
        *_list(late, "starts_late", "warning", lambda row: f"begins on {row['first']}, the table on {begin}"),
        *_list(early, "ends_early", "warning", lambda row: f"ends on {row['last']}, the table on {end}"),
    ]
