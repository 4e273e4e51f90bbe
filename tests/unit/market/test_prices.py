"""The price table: what it reads, what it refuses, and that nothing is lost between file and arrays."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from finseek.core.errors import InputError
from finseek.core.sessions import Sessions
from finseek.market import Prices, PricesOptions, describe_prices, generate_prices, load_prices, write_prices

ROWS = """date,ticker,open,high,low,close,adjusted_close,volume
2024-01-03,BBB,11,12,10,11.5,5.75,200
2024-01-02,AAA,100,101,99,100.5,100.5,1000
2024-01-02,BBB,10,11,9,10.5,5.25,100
2024-01-04,AAA,102,103,101,102.5,102.5,3000
2024-01-05,SPY,500,501,499,500.5,500.5,9000
2024-01-02,SPY,490,491,489,490.5,490.5,9000
"""


@pytest.fixture
def csv(tmp_path):
    def write(text: str = ROWS, name: str = "prices.csv") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_rows_become_dense_arrays(csv):
    prices = load_prices(csv(), PricesOptions(benchmark="SPY"))
    assert prices.tickers == ("AAA", "BBB")
    assert prices.sessions.dates.astype(str).tolist() == ["2024-01-02", "2024-01-03", "2024-01-04"]
    np.testing.assert_array_equal(prices.close, [[100.5, 10.5], [np.nan, 11.5], [102.5, np.nan]])
    np.testing.assert_array_equal(prices.adjusted_open, [[100, 5], [np.nan, 5.5], [102, np.nan]])
    np.testing.assert_array_equal(prices.money[:, 1], [1050, 2300, np.nan])
    np.testing.assert_array_equal(prices.benchmark.close, [[490.5], [np.nan], [np.nan]])
    assert prices.column("BBB") == 1
    with pytest.raises(InputError, match="'CCC' is not in the price table"):
        prices.column("CCC")


def test_sessions_are_the_days_of_the_universe(csv):
    """A day on which only the benchmark trades is no session; a restriction drops the days of the others."""
    assert len(load_prices(csv()).sessions) == 4
    prices = load_prices(csv(), PricesOptions(benchmark="SPY"), tickers=["AAA"])
    assert prices.sessions.dates.astype(str).tolist() == ["2024-01-02", "2024-01-04"]
    restricted = load_prices(csv(), PricesOptions(benchmark="SPY")).of(["AAA"])
    np.testing.assert_array_equal(restricted.sessions.dates, prices.sessions.dates)
    np.testing.assert_array_equal(restricted.close, prices.close)
    np.testing.assert_array_equal(restricted.benchmark.close, prices.benchmark.close)


def test_the_same_table_from_csv_gz_and_parquet(csv, tmp_path):
    import gzip

    packed = tmp_path / "p.csv.gz"
    packed.write_bytes(gzip.compress(ROWS.encode()))
    parquet = tmp_path / "p.parquet"
    pl.read_csv(csv(), try_parse_dates=True).write_parquet(parquet)
    times = tmp_path / "t.parquet"
    pl.read_parquet(parquet).with_columns(pl.col("date").cast(pl.Datetime("us"))).write_parquet(times)
    one = load_prices(csv())
    for other in (packed, parquet, times):
        np.testing.assert_array_equal(load_prices(other).adjusted_close, one.adjusted_close)


def test_columns_are_mapped_and_days_cut(csv):
    rows = [line.split(",") for line in ROWS.splitlines()]
    lines = ["Day,Symbol,open,high,low,close,volume"]
    lines += [f"{r[0][8:]}.{r[0][5:7]}.{r[0][:4]},{','.join(r[1:6])},{r[7]}" for r in rows[1:]]
    source = csv("\n".join(lines))
    options = PricesOptions(
        columns={"date": "Day", "ticker": "Symbol", "adjusted_close": "close"},
        date_format="%d.%m.%Y",
        start=date(2024, 1, 3),
        end=date(2024, 1, 4),
    )
    prices = load_prices(source, options)
    assert prices.sessions.dates.astype(str).tolist() == ["2024-01-03", "2024-01-04"]
    np.testing.assert_array_equal(prices.adjusted_close, prices.close)


def test_a_row_without_prices_is_no_bar_and_a_missing_volume_is_unknown(csv):
    prices = load_prices(csv(ROWS + "2024-01-03,AAA,,,,,,\n2024-01-06,AAA,1,1,1,1,1,\n"))
    assert not prices.has_bar[1, 0]
    assert prices.has_bar[-1, 0]
    assert np.isnan(prices.volume[-1, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("volume", "close"), r"has several columns 'close': keep one"),
        (("volume", "shares"), r"has no column 'volume', only date, .*set prices\.columns\.volume"),
        (("adjusted_close", "adj"), "map it to close if the prices are adjusted already"),
        (("2024-01-03,BBB", "2024-01-02,BBB"), r"BBB has several rows for 2024-01-02 \(2 such rows\)"),
        (("100.5,100.5", "0,100.5"), "close 0.0 of AAA on 2024-01-02 is not a price above 0"),
        (("100.5,100.5", "-1,100.5"), "close -1.0 of AAA on 2024-01-02 is not a price above 0"),
        (("100.5,100.5", "inf,100.5"), "close inf of AAA on 2024-01-02 is not a price above 0"),
        (("100.5,100.5", "NaN,100.5"), "close None of AAA on 2024-01-02 is missing while"),
        (("100.5,100.5", ",100.5"), "close None of AAA on 2024-01-02 is missing while other prices"),
        (("100.5,100.5", "abc,100.5"), "close 'abc' of AAA is not a number"),
        (("5.25,100", "5.25,-100"), "volume -100.0 of BBB on 2024-01-02 is not a count of shares"),
        (("2024-01-03", "03/01/2024"), "date '03/01/2024' of BBB is not a date of the form %Y-%m-%d"),
        (("2024-01-03,BBB", ",BBB"), "1 rows have no date"),
        (("2024-01-03,BBB", "2024-01-03,"), "1 rows have no ticker"),
    ],
)
def test_bad_tables_are_refused_in_one_line(csv, change, message):
    with pytest.raises(InputError, match=message) as caught:
        load_prices(csv(ROWS.replace(*change)))
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_refused(csv, tmp_path):
    with pytest.raises(InputError, match=r"no\.csv does not exist"):
        load_prices(tmp_path / "no.csv")
    with pytest.raises(InputError, match="holds no prices"):
        load_prices(csv(ROWS.splitlines()[0]))
    with pytest.raises(InputError, match="holds no prices from 2030-01-01 to the end"):
        load_prices(csv(), PricesOptions(start=date(2030, 1, 1)))
    with pytest.raises(InputError, match=r"no prices of ticker 'AAAA' \(the nearest is AAA\)"):
        load_prices(csv(), tickers=["AAAA", "BBB"])
    with pytest.raises(InputError, match=r"no prices of ticker 'aaa' \(the nearest is AAA\)"):
        load_prices(csv(), tickers=["aaa"])
    with pytest.raises(InputError, match="no prices of ticker 'QQQ'"):
        load_prices(csv(), PricesOptions(benchmark="QQQ"))
    with pytest.raises(InputError, match="leaves no ticker"):
        load_prices(csv(), tickers=[])
    with pytest.raises(InputError, match=r"ends in none of \.csv"):
        load_prices(csv(name="prices.txt"))
    with pytest.raises(InputError, match="cannot be read"):
        load_prices(csv("no parquet", name="prices.parquet"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"no \.parquet file"):
        load_prices(tmp_path / "folder")


def test_times_of_the_day_are_refused(csv, tmp_path):
    table = pl.read_csv(csv(), try_parse_dates=True).with_columns(
        pl.col("date").cast(pl.Datetime) + pl.duration(hours=9)
    )
    table.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="times of the day"):
        load_prices(tmp_path / "t.parquet")


def test_tickers_are_text_whatever_they_look_like(csv):
    text = ROWS.replace("AAA", "TRUE").replace("BBB", "0005")
    assert load_prices(csv(text)).tickers == ("0005", "SPY", "TRUE")


def test_written_and_read_again_nothing_changes(tmp_path):
    prices, _ = generate_prices(3, n_tickers=4, n_sessions=40)
    hole = np.zeros(prices.close.shape, dtype=bool)
    hole[5:9, 1] = True
    arrays = [np.where(hole, np.nan, getattr(prices, n)) for n in ("open", "high", "low", "close", "volume")]
    adjusted = np.where(hole, np.nan, prices.close * 0.7)
    prices = Prices(prices.sessions, prices.tickers, *arrays, adjusted, prices.benchmark)
    write_prices(prices, tmp_path / "p.parquet")
    again = load_prices(tmp_path / "p.parquet", PricesOptions(benchmark="MKT"))
    for name in ("open", "high", "low", "close", "volume", "adjusted_close"):
        np.testing.assert_array_equal(getattr(again, name), getattr(prices, name))
        np.testing.assert_array_equal(getattr(again.benchmark, name), getattr(prices.benchmark, name))
    described = describe_prices(again)
    assert described["bars"] + described["missing_bars"] == 4 * 40
    assert described["missing_bars"] == 4
    assert described["benchmark"] == "MKT"


def test_a_benchmark_in_the_universe_is_written_once(csv, tmp_path):
    prices = load_prices(csv(), PricesOptions(benchmark="SPY"), tickers=["AAA", "SPY"])
    write_prices(prices, tmp_path / "p.parquet")
    again = load_prices(tmp_path / "p.parquet", PricesOptions(benchmark="SPY"), tickers=["AAA", "SPY"])
    np.testing.assert_array_equal(again.close, prices.close)


def test_shapes_and_order_are_checked():
    sessions, one = Sessions.of(["2024-01-02", "2024-01-03"]), np.ones((2, 1))
    with pytest.raises(InputError, match="shape"):
        Prices(sessions, ("A",), one, one, one, one, one, np.ones((1, 2)))
    two = np.ones((2, 2))
    with pytest.raises(InputError, match="sorted and unique"):
        Prices(sessions, ("B", "A"), two, two, two, two, two, two)


@pytest.mark.realdata
def test_the_real_file(real_prices):
    prices = load_prices(real_prices, PricesOptions(benchmark="SPY"))
    assert prices.close.shape == (496, 20)
    assert prices.has_bar.all()
    assert int(prices.benchmark.has_bar.sum()) == 495
    table = pl.read_parquet(real_prices).filter(pl.col("ticker") == "TSLA").sort("date")
    np.testing.assert_array_equal(prices.close[:, prices.column("TSLA")], table["close"].to_numpy())
