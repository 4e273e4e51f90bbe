"""Stooq, Yahoo, files and the synthetic market behind the protocol of EODHD."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime

import numpy as np
import pytest

from finseek.core.errors import ConfigError
from finseek.market import PricesOptions, generate_prices, write_prices
from finseek.market.fetch import fetch_prices, load_fetched
from finseek.market.providers import ProviderError, make_provider, symbol_of
from finseek.market.providers.base import bars_of
from finseek.market.providers.yahoo import bars_from_yahoo

START, END = date(2024, 1, 2), date(2024, 1, 31)
NOW = datetime(2026, 1, 5, tzinfo=UTC)
GOOD = "Date,Open,High,Low,Close,Volume\r\n2024-01-02,10,11,9,10.5,100\r\n2024-01-03,10.5,12,10,11.5,200.5\r\n"


@pytest.fixture
def stooq() -> Iterator[tuple[PricesOptions, list[str], list[str]]]:
    answers, asked = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            asked.append(self.path)
            body = (answers.pop(0) if len(answers) > 1 else answers[0]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    options = PricesOptions(provider="stooq", base_url=url, attempts=2, backoff=0.01, requests_per_minute=0)
    yield options, answers, asked
    server.shutdown()
    server.server_close()
    thread.join()


def ask(options: PricesOptions) -> list[tuple]:
    provider = make_provider(options)
    try:
        return provider.fetch(symbol_of("AMZN", options), START, END).table.rows()
    finally:
        provider.close()


def test_stooq_answers_csv(stooq):
    options, answers, asked = stooq
    answers.append(GOOD)
    assert ask(options) == [
        (date(2024, 1, 2), 10.0, 11.0, 9.0, 10.5, 10.5, 100.0),
        (date(2024, 1, 3), 10.5, 12.0, 10.0, 11.5, 11.5, 200.5),
    ]
    assert asked == ["/q/d/l/?s=amzn.us&d1=20240102&d2=20240131&i=d"]


@pytest.mark.parametrize(
    ("body", "kind", "requests"),
    [
        ("No data", "unknown_symbol", 1),
        ("Exceeded the daily hits limit", "quota", 1),
        ("<html>busy</html>", "bad_answer", 2),
        (GOOD[:-8] + "\r\n", "bad_answer", 2),
        (GOOD.replace("11.5", "many"), "bad_answer", 1),
        (GOOD.replace("11.5", "-1"), "bad_answer", 1),
        ("", "bad_answer", 2),
    ],
)
def test_stooq_says_everything_with_status_200(stooq, body, kind, requests):
    options, answers, asked = stooq
    answers.append(body)
    with pytest.raises(ProviderError) as caught:
        ask(options)
    assert (caught.value.kind, len(asked)) == (kind, requests)


def test_yahoo_history_is_brought_back_to_what_was_quoted():
    """Yahoo divides its whole past by a later split: 10:1 on the third day, 2:1 after the table."""
    import pandas as pd

    days = pd.DatetimeIndex(["2024-01-02", "2024-01-03", "2024-01-04"], tz="America/New_York")
    raw = np.array([1000.0, 1010.0, 102.0])
    shown = raw / np.array([20, 20, 2])
    history = pd.DataFrame(
        {
            "Open": shown,
            "High": shown,
            "Low": shown,
            "Close": shown,
            "Adj Close": shown * 0.9,
            "Volume": np.array([5.0, 6.0, 70.0]) * [20, 20, 2],
        },
        index=days,
    )
    splits = pd.Series([10.0, 2.0], index=pd.DatetimeIndex(["2024-01-04", "2025-06-02"], tz="America/New_York"))
    table = bars_from_yahoo(history, splits)
    np.testing.assert_allclose(table["close"].to_numpy(), raw)
    np.testing.assert_allclose(table["volume"].to_numpy(), [5, 6, 70])
    np.testing.assert_allclose(table["adjusted_close"].to_numpy(), shown * 0.9)
    assert table["date"].to_list() == [date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4)]
    assert bars_of(table, "X", START, END).table.height == 3


def test_a_file_and_the_synthetic_market_are_providers_too(tmp_path):
    prices = generate_prices(0)[0]
    write_prices(prices, tmp_path / "p.parquet")
    days = prices.sessions.dates
    start, end = days[10].item(), days[200].item()
    common = {"cache_dir": tmp_path / "store", "benchmark": "MKT", "start": start, "end": end}
    tables = []
    for options in (
        PricesOptions(provider="file", source=tmp_path / "p.parquet", **common),
        PricesOptions(provider="synthetic", **common),
    ):
        outcomes = fetch_prices(["S00", "S07"], start, end, options, now=NOW)
        assert [outcome.status for outcome in outcomes] == ["fetched"] * 3
        tables.append(load_fetched(options, ["S00", "S07"]))
        (unknown,) = fetch_prices(["QQ"], start, end, options.model_copy(update={"benchmark": None}), now=NOW)
        assert (unknown.status, unknown.kind) == ("failed", "unknown_symbol")
    for table in tables:
        np.testing.assert_array_equal(table.close, prices.of(["S00", "S07"]).close[10:201])
    with pytest.raises(ConfigError, match=r"prices\.source"):
        make_provider(PricesOptions(provider="file"))


def test_symbols_are_named_not_guessed():
    options = PricesOptions(provider="eodhd", symbols={"BRK.B": "BRK-B.US"})
    assert symbol_of("AMZN", options) == "AMZN.US"
    assert symbol_of("BRK.B", options) == "BRK-B.US"
    assert symbol_of("VOD.LSE", options.model_copy(update={"exchange": ""})) == "VOD.LSE"
    assert symbol_of("AMZN", PricesOptions(provider="yfinance")) == "AMZN"
