"""Where prices come from, behind one protocol."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import SecretStr

from finseek.core.errors import ConfigError, InputError
from finseek.market.options import PricesOptions
from finseek.market.providers.base import Bars, Provider, ProviderError
from finseek.market.providers.eodhd import URL as EODHD_URL
from finseek.market.providers.eodhd import Eodhd
from finseek.market.providers.http import HttpSource
from finseek.market.providers.local import file_provider, synthetic_provider
from finseek.market.providers.stooq import URL as STOOQ_URL
from finseek.market.providers.stooq import Stooq
from finseek.market.providers.yahoo import Yahoo

__all__ = ["KEYS", "Bars", "Provider", "ProviderError", "make_provider", "symbol_of"]

# The variable that holds the key of a provider that wants one.
KEYS = {"eodhd": "EODHD_API_KEY"}

# Providers whose symbols end in an exchange.
SUFFIXED = ("eodhd", "stooq")


def symbol_of(ticker: str, options: PricesOptions) -> str:
    """The provider's symbol of a ticker: as ``symbols`` says, else TICKER.EXCHANGE where the provider wants one."""
    if ticker in options.symbols:
        return options.symbols[ticker]
    suffix = f".{options.exchange}" if options.exchange and options.provider in SUFFIXED else ""
    return f"{ticker}{suffix}"


def _http(options: PricesOptions, url: str, key: SecretStr | None = None) -> HttpSource:
    return HttpSource(
        options.base_url or url,
        key=key,
        requests_per_minute=options.requests_per_minute,
        attempts=options.attempts,
        backoff=options.backoff,
        max_wait=options.max_wait,
        timeout=options.timeout,
    )


def _eodhd(options: PricesOptions, key: SecretStr | None) -> Provider:
    if key is None or not key.get_secret_value().strip():
        raise InputError(f"provider eodhd needs a key: set {KEYS['eodhd']} in the environment or in .env")
    return Eodhd(_http(options, EODHD_URL, SecretStr(key.get_secret_value().strip())))


def _file(options: PricesOptions, key: SecretStr | None) -> Provider:
    if options.source is None:
        raise ConfigError("provider file needs prices.source: name a Parquet or CSV file")
    return file_provider(options.source, options)


_MAKE: dict[str, Callable[[PricesOptions, SecretStr | None], Provider]] = {
    "eodhd": _eodhd,
    "stooq": lambda options, key: Stooq(_http(options, STOOQ_URL)),
    "yfinance": lambda options, key: Yahoo(),
    "file": _file,
    "synthetic": lambda options, key: synthetic_provider(),
}


def make_provider(options: PricesOptions, key: SecretStr | None = None) -> Provider:
    """The provider that the options name.

    Args:
        options: ``provider`` and how to talk to it.
        key: its key, read by the caller from the variable in ``KEYS``.

    Raises:
        ConfigError: the options name none.
        InputError: it wants a key and there is none.
    """
    if options.provider is None:
        raise ConfigError(f"config key prices.provider is missing: name one of {', '.join(_MAKE)}")
    return _MAKE[options.provider](options, key)
