"""Filling the store for a universe, symbol by symbol, and saying what came of each."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

from pydantic import SecretStr

from finseek.core.errors import ConfigError, FinseekError, InputError, MissingPart
from finseek.core.progress import Progress, silent
from finseek.market.options import PricesOptions
from finseek.market.prices import Prices
from finseek.market.providers import Provider, ProviderError, make_provider, symbol_of
from finseek.market.providers.base import FATAL
from finseek.market.store import Store
from finseek.market.table import to_prices

# 252 sessions of history and then some before the first thesis; 30 sessions of forward return after the last.
HISTORY = timedelta(days=400)
AFTERMATH = timedelta(days=60)
WORKERS = 4


@dataclass(frozen=True)
class Outcome:
    """What came of one ticker.

    Attributes:
        ticker: in the universe.
        symbol: at the provider.
        status: ``failed`` and ``not tried`` leave what was held before.
        bars: held now within the range.
        first: day of the first of them, ISO; empty where there is none.
        last: day of the last.
        message: why it failed, or why all was fetched again.
        kind: of the failure.
    """

    ticker: str
    symbol: str
    status: Literal["fetched", "extended", "refetched", "unchanged", "failed", "not tried"]
    bars: int = 0
    first: str = ""
    last: str = ""
    message: str = ""
    kind: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def range_around(first: date, last: date) -> tuple[date, date]:
    """The days of prices that theses from ``first`` to ``last`` need: history before, forward returns after."""
    return first - HISTORY, last + AFTERMATH


def fetch_prices(
    tickers: Sequence[str],
    start: date,
    end: date,
    options: PricesOptions,
    *,
    now: datetime,
    key: SecretStr | None = None,
    provider: Provider | None = None,
    progress: Progress = silent,
) -> list[Outcome]:
    """Bring the store up to date for these tickers and the benchmark. Killed at any time, it goes on where it was.

    A key or a quota that is refused stops the fetch; what fails for one symbol leaves the others alone.

    Args:
        tickers: of the universe.
        start: first day.
        end: last day.
        options: provider, store, benchmark, symbols.
        now: current time, UTC.
        key: of the provider.
        provider: used instead of the one that the options name.
        progress: told after each ticker.

    Returns:
        One outcome a ticker, in the order of the tickers.

    Raises:
        InputError: no ticker, start after end, no provider, no key.
    """
    names = list(dict.fromkeys([*tickers, *([options.benchmark] if options.benchmark else [])]))
    if not tickers:
        raise InputError("prices of no ticker were asked for: name tickers, or theses to take them from")
    if start > end:
        raise InputError(f"start {start} comes after end {end}: exchange them")
    source = provider or make_provider(options, key)
    store = Store(options.cache_dir)
    stop = threading.Event()
    lock, done = threading.Lock(), [0]

    def one(ticker: str) -> Outcome:
        symbol = symbol_of(ticker, options)
        outcome = (
            _not_tried(ticker, symbol) if stop.is_set() else _update(store, source, ticker, symbol, start, end, now)
        )
        if outcome.kind in FATAL:
            stop.set()
        with lock:
            done[0] += 1
            progress("prices", done[0], len(names), "tickers")
        return outcome

    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            try:
                return list(pool.map(one, names))
            except BaseException:
                stop.set()
                raise
    finally:
        if provider is None:
            source.close()


def _not_tried(ticker: str, symbol: str) -> Outcome:
    return Outcome(ticker, symbol, "not tried", message="the provider refused the key or the quota is used up")


def _update(
    store: Store, provider: Provider, ticker: str, symbol: str, start: date, end: date, now: datetime
) -> Outcome:
    try:
        held, action, why = store.update(provider, symbol, start, end, now)
    except ProviderError as error:
        return Outcome(ticker, symbol, "failed", message=str(error), kind=error.kind)
    except MissingPart:
        raise
    except FinseekError as error:
        return Outcome(ticker, symbol, "failed", message=str(error), kind="input")
    days = held.table.filter(held.table["date"].is_between(start, end))["date"]
    ends = (str(days[0]), str(days[-1])) if len(days) else ("", "")
    return Outcome(ticker, symbol, action, len(days), *ends, why or held.note)


def load_fetched(options: PricesOptions, tickers: Sequence[str]) -> Prices:
    """The price table of these tickers and the benchmark from the store, without a network.

    Raises:
        ConfigError: the options name no provider.
        InputError: something was not fetched.
    """
    if options.provider is None:
        raise ConfigError("config key prices.provider is missing: name the provider whose prices were fetched")
    names = [*tickers, *([options.benchmark] if options.benchmark else [])]
    symbols = {name: symbol_of(name, options) for name in names}
    table = Store(options.cache_dir).table(options.provider, symbols, options.start, options.end)
    return to_prices(table, tickers, options.benchmark, str(options.cache_dir))
