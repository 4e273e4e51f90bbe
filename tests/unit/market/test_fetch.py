"""EODHD over real sockets: every bad day of a server ends in the right data or one clear error, never a wrong store."""

from __future__ import annotations

import io
import logging
import time
import traceback
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from finseek.core.errors import ConfigError, InputError
from finseek.market.fetch import fetch_prices, load_fetched, range_around
from finseek.market.options import PricesOptions
from finseek.market.providers import ProviderError, make_provider
from finseek.market.providers.http import retry_after
from finseek.market.store import Store

START, END = date(2023, 3, 1), date(2024, 6, 28)
NOW = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture
def options(market, tmp_path) -> PricesOptions:
    return PricesOptions(
        provider="eodhd",
        base_url=market.url,
        cache_dir=tmp_path / "store",
        attempts=3,
        backoff=0.01,
        max_wait=2.0,
        timeout=1.0,
        requests_per_minute=0,
    )


@pytest.fixture
def fetch(options, key):
    def run(tickers="AAA", start=START, end=END, **changes):
        chosen = options.model_copy(update=changes.pop("options", {}))
        return fetch_prices(tickers.split(), start, end, chosen, now=changes.pop("now", NOW), key=SecretStr(key))

    return run


def right(market, held, symbol="AAA.US", start=START, end=END) -> bool:
    wanted = market.rows(symbol, start.isoformat(), end.isoformat())
    rows = held.table.with_columns(held.table["date"].cast(str)).to_dicts()
    return rows == [{name: float(v) if name != "date" else v for name, v in row.items()} for row in wanted]


def held(options, symbol="AAA.US"):
    return Store(options.cache_dir).read("eodhd", symbol)


@pytest.mark.parametrize(
    ("script", "requests"),
    [
        (["normal"], 1),
        (["slow"], 1),
        (["hang"], 2),
        (["429"], 2),
        (["429", "429"], 3),
        (["500"], 2),
        (["truncated"], 2),
        (["cut"], 2),
        (["html"], 2),
        (["reset"], 2),
        (["reset", "500"], 3),
        (["disorder"], 1),
        (["twice"], 1),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_ends_in_the_right_data(market, fetch, options, script, requests):
    market.script["AAA.US"] = list(script)
    (outcome,) = fetch()
    assert (outcome.status, outcome.message) == ("fetched", "")
    assert right(market, held(options))
    assert len(market.asked) == requests


@pytest.mark.parametrize(
    ("script", "kind", "says", "requests"),
    [
        (["402"], "quota", "quota", 1),
        (["401"], "key", "the key is not accepted", 1),
        (["404"], "unknown_symbol", "does not know the symbol", 1),
        (["429"] * 3, "throttled", "too many requests", 3),
        (["429-hour"], "throttled", "in 3600 s", 1),
        (["500"] * 3, "server", "HTTP 500", 3),
        (["reset"] * 3, "network", "no answer", 3),
        (["truncated"] * 3, "bad_answer", "truncated", 3),
        (["html"] * 3, "bad_answer", "HTML", 3),
        (["types"], "bad_answer", "`float`", 1),
        (["object"], "bad_answer", "not a list of bars", 1),
        (["negative"], "bad_answer", "close -1.0 of AAA.US on 2023-03-06 is not a price above 0", 1),
        (["contradiction"], "bad_answer", "several rows for 2023-03-06", 1),
        (["empty"], "empty", "no bars from 2023-03-01 to 2024-06-28", 1),
        (["redirect"], "refused", "HTTP 302", 1),
        (["echo"], "refused", "HTTP 400", 1),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.parametrize("before", [False, True], ids=["nothing held", "something held"])
def test_ends_in_one_clear_error_and_an_untouched_store(
    market, fetch, options, key, script, kind, says, requests, before
):
    if before:
        fetch(end=date(2023, 12, 29))
        market.asked.clear()
    kept = held(options)
    market.script["AAA.US"] = list(script)
    if before and kind == "empty":
        says = "no bars from"
    if before and kind == "bad_answer" and "2023-03-06" in says:
        says = says.replace("2023-03-06", "2023-12-28")
    (outcome,) = fetch()
    assert (outcome.status, outcome.kind) == ("failed", kind)
    assert says in outcome.message
    assert "\n" not in outcome.message
    assert key not in outcome.message
    assert len(market.asked) == requests
    after = held(options)
    if not before:
        assert after is None
        return
    assert after.sha256 == kept.sha256
    assert (fetch()[0].status, right(market, held(options))) == ("extended", True)


@pytest.mark.parametrize("behaviour", ["429-1", "429-date"])
def test_retry_after_is_obeyed(market, fetch, behaviour):
    market.script["AAA.US"] = [behaviour]
    began = time.monotonic()
    assert fetch(options={"backoff": 0.001})[0].status == "fetched"
    # An HTTP date has whole seconds: up to one of them is lost.
    assert time.monotonic() - began >= (1.0 if behaviour == "429-1" else 0.0)
    assert len(market.asked) == 2


def test_retry_after_is_read_as_the_rfc_says():
    now = datetime(2026, 1, 5, 12, 0, 0, tzinfo=UTC)
    assert retry_after("120", now) == 120
    assert retry_after("Mon, 05 Jan 2026 12:00:30 GMT", now) == 30
    assert retry_after("Mon, 05 Jan 2026 11:00:00 GMT", now) == 0
    assert retry_after("soon", now) is None
    assert retry_after(None, now) is None


def test_the_rate_limit_spaces_requests(market, fetch):
    began = time.monotonic()
    assert len(fetch("AAA BBB CCC DDD", options={"requests_per_minute": 1200})) == 4
    assert time.monotonic() - began >= 3 * 0.05


def test_asking_for_more_fetches_only_what_is_missing(market, fetch, options):
    fetch(start=date(2023, 6, 1), end=date(2023, 12, 29))
    market.asked.clear()
    assert fetch(start=date(2023, 7, 3), end=date(2023, 9, 1))[0].status == "unchanged"
    assert market.asked == []
    assert fetch(start=date(2023, 6, 1), end=date(2024, 3, 1))[0].status == "extended"
    assert market.asked == [("AAA.US", "2023-12-25", "2024-03-01")]
    market.asked.clear()
    assert fetch(start=START, end=END)[0].status == "extended"
    assert market.asked == [("AAA.US", "2024-02-26", "2024-06-28"), ("AAA.US", "2023-03-01", "2023-06-07")]
    assert right(market, held(options))
    assert fetch()[0].status == "unchanged"


def test_two_disjoint_ranges_leave_no_hole(market, fetch, options):
    fetch(start=date(2023, 3, 1), end=date(2023, 4, 28))
    fetch(start=date(2024, 5, 1), end=END)
    assert right(market, held(options))


def test_adjustment_in_the_meantime_fetches_the_symbol_whole(market, fetch, options, caplog):
    fetch(end=date(2023, 12, 29))
    market.factor["AAA.US"] = (0.5, "2024-02-01")
    with caplog.at_level(logging.WARNING):
        (outcome,) = fetch()
    assert outcome.status == "refetched"
    assert "a later split or dividend" in outcome.message
    assert "fetching it whole" in caplog.text
    assert right(market, held(options))


def test_a_small_dividend_in_the_meantime_is_seen(market, fetch, options):
    fetch(end=date(2023, 12, 29))
    market.factor["AAA.US"] = (0.9999, "2024-02-01")
    assert fetch()[0].status == "refetched"
    assert right(market, held(options))


def test_a_failed_whole_fetch_keeps_what_was_held(market, fetch, options):
    fetch(end=date(2023, 12, 29))
    kept = held(options).sha256
    market.factor["AAA.US"] = (0.5, "2024-02-01")
    market.script["AAA.US"] = ["normal", "404"]
    assert fetch()[0].status == "failed"
    assert held(options).sha256 == kept


def test_a_subscription_that_cuts_the_answer_covers_only_what_came(market, fetch, options):
    market.script["AAA.US"] = ["limited"]
    (outcome,) = fetch()
    assert outcome.message == "Data is limited by one year"
    assert held(options).start == date.fromisoformat(outcome.first) > START
    with pytest.raises(InputError, match="holds only"):
        load_fetched(options.model_copy(update={"start": START, "end": END}), ["AAA"])


def test_days_whose_bar_is_not_final_are_not_covered(market, fetch, options):
    now = datetime(2024, 6, 26, 15, 0, tzinfo=UTC)
    market.script["AAA.US"] = []
    (outcome,) = fetch(now=now)
    assert outcome.last == "2024-06-25"
    assert held(options).end == date(2024, 6, 25)
    assert fetch()[0].status == "extended"
    assert right(market, held(options))


def test_future_days_alone_are_refused(fetch):
    (outcome,) = fetch(start=date(2027, 1, 1), end=date(2027, 2, 1))
    assert (outcome.status, outcome.kind) == ("failed", "input")


def test_one_bad_symbol_leaves_the_others_alone(market, fetch):
    market.script["BBB.US"] = ["404"]
    outcomes = fetch("AAA BBB CCC")
    assert [(o.ticker, o.status) for o in outcomes] == [("AAA", "fetched"), ("BBB", "failed"), ("CCC", "fetched")]


def test_a_used_up_quota_stops_the_fetch(market, fetch):
    market.pause = 0.02
    tickers = [f"T{k:02d}" for k in range(30)]
    for ticker in tickers:
        market.script[f"{ticker}.US"] = ["402"]
    outcomes = fetch(" ".join(tickers))
    assert {o.status for o in outcomes} == {"failed", "not tried"}
    assert len(market.asked) <= 8


def test_the_store_feeds_a_price_table(market, fetch, options):
    fetch("AAA BBB", options={"benchmark": "SPY", "symbols": {"BBB": "BBB.LSE"}})
    chosen = options.model_copy(update={"benchmark": "SPY", "symbols": {"BBB": "BBB.LSE"}, "start": START, "end": END})
    prices = load_fetched(chosen, ["AAA", "BBB"])
    assert prices.tickers == ("AAA", "BBB")
    assert prices.benchmark.tickers == ("SPY",)
    wanted = [row["close"] for row in market.rows("BBB.LSE", START.isoformat(), END.isoformat())]
    assert prices.close[:, 1].tolist() == wanted
    with pytest.raises(InputError, match=r"holds nothing of ZZZ .*finseek prices fetch"):
        load_fetched(chosen, ["ZZZ"])


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("how", [damage, lambda path: path.write_bytes(path.read_bytes()[:500])], ids=["bit", "cut"])
def test_a_damaged_file_is_fetched_again_and_never_used(market, fetch, options, how):
    fetch()
    how(Store(options.cache_dir).path("eodhd", "AAA.US"))
    with pytest.raises(Exception, match="is damaged"):
        held(options)
    (outcome,) = fetch()
    assert outcome.status == "refetched"
    assert right(market, held(options))


def test_strange_symbols_stay_in_their_folder(tmp_path):
    store = Store(tmp_path)
    for symbol in ("../../etc/passwd", "^GSPC", "EURUSD=X", "..", "a/b"):
        assert store.path("eodhd", symbol).resolve().parent == (tmp_path / "eodhd").resolve()


def test_the_key_is_sent_and_shown_nowhere(market, options, key, tmp_path):
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    root.addHandler(handler)
    level, seen = root.level, []
    root.setLevel(logging.DEBUG)
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        for behaviour in ("normal", "402", "500", "reset", "echo", "html-echo", "redirect", "cut"):
            market.script["AAA.US"] = [behaviour] * 3
            provider = make_provider(options, SecretStr(key))
            seen.append(f"{provider!r} {vars(provider)!r} {provider._http!r} {vars(provider._http)!r}")
            try:
                provider.fetch("AAA.US", START, END)
            except ProviderError as error:
                seen.append(str(error))
                chain, link = [], error
                while link is not None and link not in chain:
                    chain.append(link)
                    trace = traceback.TracebackException.from_exception(link, capture_locals=True)
                    frames = [frame for frame in trace.stack if frame.filename != __file__]  # ours know the key
                    assert frames
                    seen.extend(f"{frame.name} {frame.locals}" for frame in frames)
                    link = link.__cause__ or link.__context__
            finally:
                provider.close()
        outcomes = fetch_prices(["AAA", "BBB"], START, END, options, now=NOW, key=SecretStr(key))
        seen.extend(str(outcome.to_json()) for outcome in outcomes)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.NOTSET)
    assert market.tokens == {key}
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    everything = "".join(seen) + log.getvalue() + files.decode("latin-1") + options.model_dump_json()
    assert "AAA.US" in log.getvalue()
    for form in (key, quote(key, safe=""), quote(key)):
        assert form not in everything


def test_without_a_key_nothing_is_asked(market, options):
    for key in (None, SecretStr(" ")):
        with pytest.raises(InputError, match="EODHD_API_KEY"):
            fetch_prices(["AAA"], START, END, options, now=NOW, key=key)
    assert market.asked == []


def test_the_key_does_not_travel_in_the_clear(options, key):
    with pytest.raises(InputError, match="must be https"):
        make_provider(options.model_copy(update={"base_url": "http://example.com/api"}), SecretStr(key))


def test_wrong_usage(options, key):
    with pytest.raises(InputError, match="no ticker"):
        fetch_prices([], START, END, options, now=NOW, key=SecretStr(key))
    with pytest.raises(InputError, match="comes after end"):
        fetch_prices(["A"], END, START, options, now=NOW, key=SecretStr(key))
    with pytest.raises(ConfigError, match=r"prices\.provider"):
        fetch_prices(["A"], START, END, PricesOptions(), now=NOW)


def test_the_range_around_theses_holds_history_and_aftermath():
    first, last = range_around(date(2024, 1, 2), date(2024, 12, 31))
    assert (date(2024, 1, 2) - first).days > 252 * 365 / 252
    assert (last - date(2024, 12, 31)).days > 31 * 365 / 252
