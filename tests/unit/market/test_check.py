"""``prices check``: thirty planted faults are found and nothing else; corporate actions and crashes are no faults."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
import polars as pl
import pytest

from finseek.core.errors import InputError
from finseek.core.sessions import Sessions
from finseek.market import Prices, PricesOptions, generate_prices
from finseek.market.check import check_file, check_table
from finseek.market.check_rules import calendar_sessions
from finseek.market.quotes import Quote, likely_split, quoted_close
from finseek.market.table import to_table

DAYS = calendar_sessions("XNYS", date(2023, 1, 3), date(2024, 6, 28))
HALF = len(DAYS) // 2


@pytest.fixture(scope="module")
def clean() -> pl.DataFrame:
    """Thirty tickers on the sessions of the exchange; every other one pays a dividend each quarter."""
    prices, _ = generate_prices(5, n_tickers=30, n_sessions=len(DAYS), alpha=0.0)
    factor = np.ones(prices.close.shape)
    for k in range(30, len(DAYS), 63):
        factor[:k, ::2] *= 0.994
    dated = Prices(
        Sessions.of(DAYS),
        prices.tickers,
        prices.open,
        prices.high,
        prices.low,
        prices.close,
        prices.volume,
        prices.close * factor,
    )
    return to_table(dated)


Edit = Callable[[pl.DataFrame, str], pl.DataFrame]


def day(k: int) -> date:
    return DAYS[k]


def scale(k: int, factor: float, *names: str, until: int | None = None) -> Edit:
    """Multiply columns from session k on (or for ``until`` sessions)."""
    last = DAYS[-1] if until is None else DAYS[k + until - 1]

    def edit(table: pl.DataFrame, ticker: str) -> pl.DataFrame:
        here = (pl.col("ticker") == ticker) & pl.col("date").is_between(DAYS[k], last)
        return table.with_columns(pl.when(here).then(pl.col(name) * factor).otherwise(pl.col(name)) for name in names)

    return edit


def put(k: int, name: str, value: float | None) -> Edit:
    def edit(table: pl.DataFrame, ticker: str) -> pl.DataFrame:
        here = (pl.col("ticker") == ticker) & (pl.col("date") == DAYS[k])
        return table.with_columns(pl.when(here).then(pl.lit(value, pl.Float64)).otherwise(pl.col(name)).alias(name))

    return edit


def drop(k: int, count: int = 1) -> Edit:
    return lambda table, ticker: table.filter(
        ~((pl.col("ticker") == ticker) & pl.col("date").is_in(DAYS[k : k + count]))
    )


def repeat(k: int, count: int) -> Edit:
    """Bars k+1 .. k+count are copies of bar k, as a careless fill makes them."""

    def edit(table: pl.DataFrame, ticker: str) -> pl.DataFrame:
        bar = table.filter((pl.col("ticker") == ticker) & (pl.col("date") == DAYS[k])).row(0, named=True)
        here = (pl.col("ticker") == ticker) & pl.col("date").is_in(DAYS[k + 1 : k + count + 1])
        names = ("open", "high", "low", "close", "volume", "adjusted_close")
        return table.with_columns(pl.when(here).then(bar[name]).otherwise(pl.col(name)).alias(name) for name in names)

    return edit


def again(k: int, factor: float = 1.0) -> Edit:
    """A second row for session k."""

    def edit(table: pl.DataFrame, ticker: str) -> pl.DataFrame:
        row = table.filter((pl.col("ticker") == ticker) & (pl.col("date") == DAYS[k]))
        return pl.concat([table, row.with_columns(pl.col("close") * factor)])

    return edit


def extra(on: date) -> Edit:
    """A further bar, much like the one before it, on a day without a session."""

    def edit(table: pl.DataFrame, ticker: str) -> pl.DataFrame:
        row = table.filter((pl.col("ticker") == ticker) & (pl.col("date") < on)).sort("date").tail(1)
        return pl.concat([table, row.with_columns(pl.col(*PRICE) * 1.001, date=pl.lit(on))])

    return edit


PRICE = ("open", "high", "low", "close", "adjusted_close")
RAW = PRICE[:-1]
FAULTS: list[tuple[str, int, Edit]] = [
    ("duplicate", 40, again(40)),
    ("duplicate", 200, again(200, 1.01)),
    ("bad_price", 50, put(50, "close", 0.0)),
    ("bad_price", 60, put(60, "open", -3.0)),
    ("bad_price", 70, put(70, "high", float("inf"))),
    ("bad_price", 80, put(80, "low", None)),
    ("bad_price", 90, put(90, "adjusted_close", float("nan"))),
    ("bad_volume", 100, put(100, "volume", -5.0)),
    ("bad_volume", 110, put(110, "volume", float("inf"))),
    ("no_volume", 120, put(120, "volume", 0.0)),
    ("high_below_low", 130, put(130, "low", 1e4)),
    ("outside_range", 140, put(140, "open", 1e4)),
    ("outside_range", 150, put(150, "open", 0.5)),
    ("gap", 160, drop(160)),
    ("gap", 170, drop(170, 12)),
    ("no_session", 3, extra(date(2023, 7, 4))),
    ("no_session", 5, extra(date(2023, 9, 9))),
    ("jump", 180, scale(180, 0.1, *PRICE)),
    ("jump", 190, scale(190, 0.5, *PRICE)),
    ("jump", 195, scale(195, 3.0, *PRICE)),
    ("jump", 210, scale(210, 1.8, *PRICE)),
    ("spike", 220, scale(220, 1.4, *PRICE, until=1)),
    ("spike", 230, scale(230, 0.6, *PRICE, until=1)),
    ("stale", 241, repeat(240, 1)),
    ("stale", 251, repeat(250, 6)),
    ("ratio", 260, scale(260, 0.98, "adjusted_close")),
    ("ratio", 271, scale(270, 1.01, "adjusted_close", until=1)),
    ("ratio", 280, scale(280, 1.5, "adjusted_close")),
    ("starts_late", 30, drop(0, 30)),
    ("ends_early", HALF, drop(HALF + 1, len(DAYS))),
]
# What a fault brings with it: a ratio that leaps moves the adjusted close as well.
ALSO = {("ratio", 280): {"jump"}}


def planted(kind: str, k: int) -> date:
    if kind == "no_session":
        return date(2023, 7, 4) if k == 3 else date(2023, 9, 9)
    return DAYS[k]


def test_a_clean_table_with_dividends_is_clean(clean):
    report = check_table(clean)
    assert report.findings == []
    assert report.to_json()["errors"] == 0


def test_thirty_planted_faults_are_all_found_and_nothing_else(clean):
    assert len(FAULTS) == 30
    table = clean
    tickers = sorted(clean["ticker"].unique())
    for ticker, (_, _, edit) in zip(tickers, FAULTS, strict=True):
        table = edit(table, ticker)
    report = check_table(table.sample(fraction=1.0, shuffle=True, seed=1))
    found = {(f.ticker, f.kind, f.date) for f in report.findings}
    wanted = {(ticker, kind, planted(kind, k)) for ticker, (kind, k, _) in zip(tickers, FAULTS, strict=True)}
    assert wanted - found == set()
    for ticker, (kind, k, _) in zip(tickers, FAULTS, strict=True):
        kinds = {f.kind for f in report.findings if f.ticker == ticker}
        assert kinds <= {kind} | ALSO.get((kind, k), set()), (ticker, kind, kinds)
    assert report.errors == sum(f.severity == "error" for f in report.findings)
    assert sum(report.counts().values()) == len(report.findings)


@pytest.mark.parametrize(("ratio", "raw"), [(10.0, 0.1), (2.0, 0.5), (1.5, 1 / 1.5), (0.1, 10.0)])
def test_an_adjusted_split_is_no_fault(clean, ratio, raw):
    """Raw prices change by the split, adjusted ones are divided before it: the adjusted series does not move."""
    table = scale(HALF, raw, *RAW)(clean, "S01")
    table = scale(0, 1 / ratio, "adjusted_close")(table, "S01")
    assert check_table(table).findings == []


def test_a_crash_is_a_warning_and_an_unadjusted_split_an_error(clean):
    (crash,) = check_table(scale(100, 0.56, *PRICE)(clean, "S03")).findings
    assert (crash.kind, crash.severity) == ("jump", "warning")
    (split,) = check_table(scale(100, 0.1, *PRICE)(clean, "S03")).findings
    assert split.severity == "error"
    assert "an unadjusted 10:1 split?" in split.message


def test_a_table_of_one_day_and_one_beyond_the_calendar(clean):
    assert check_table(clean.filter(pl.col("date") == DAYS[9])).findings == []
    weekend = clean.filter(pl.col("date") == DAYS[9]).with_columns(date=pl.lit(date(2023, 9, 9)))
    assert set(check_table(weekend).counts()) == {"no_session"}
    for year in (1, 1200, 9999):
        far = clean.filter(pl.col("date") == DAYS[9]).with_columns(date=pl.lit(date(year, 5, 5)))
        with pytest.raises(InputError, match=r"prices\.calendar XNYS does not know") as caught:
            check_table(far)
        assert "\n" not in str(caught.value)


def test_without_a_calendar_days_are_not_judged(clean):
    table = drop(50, 3)(clean, "S01")
    assert check_table(table).counts() == {"gap": 1}
    assert check_table(table, None).findings == []
    with pytest.raises(InputError, match="is no exchange calendar"):
        check_table(clean, "XXXX")


@pytest.mark.parametrize(
    ("text", "close"),
    [
        ("AMZN closed at $131.21 after", 131.21),
        ("a closing price of $2,806.87, above", 2806.87),
        ("The close of $5.00 was", 5.0),
        ("it is close to $131.215", None),
        ("closed higher. Target: $131.21", None),
        ("closed at 131.21", None),
        ("disclosed $131.21", None),
        ("closed at $131", None),
    ],
)
def test_quoted_closes(text, close):
    assert quoted_close(text) == close


def test_likely_splits():
    assert [likely_split(r) for r in (10.0, 0.1, 2.02, 1.5, 1.2, 0.9)] == ["10:1", "1:10", "2:1", "3:2", "", ""]


def test_quotes_that_a_split_explains_are_an_error(clean):
    own = clean.filter(pl.col("ticker") == "S02").sort("date")
    close = dict(zip(own["date"], own["close"], strict=True))
    right = [Quote("S02", d, close[d]) for d in DAYS[:20]]
    lagging = [Quote("S02", DAYS[k + 1], close[DAYS[k]]) for k in range(3)]
    outside = [Quote("S02", date(2030, 1, 1), 5.0)]
    report = check_table(clean, None, [*right, *lagging, *outside])
    assert report.findings == []
    assert report.quotes.to_json() == {"quotes": 24, "matched": 20, "differing": 3, "no_bar": 1}
    divided = scale(0, 0.1, *RAW, "adjusted_close")(clean, "S02")
    (found,) = check_table(divided, None, right).findings
    assert (found.kind, found.severity, found.ticker) == ("quotes", "error", "S02")
    assert "10:1 times" in found.message


@pytest.mark.realdata
def test_the_real_file_is_clean(real_prices):
    report = check_file(real_prices, PricesOptions())
    assert report.findings == []
    assert (report.rows, report.tickers) == (10415, 21)
