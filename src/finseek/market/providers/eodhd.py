"""EODHD (eodhd.com): ``GET /api/eod/AMZN.US?from=&to=&fmt=json``; raw prices, adjusted close, one call a symbol."""

from __future__ import annotations

from datetime import date
from urllib.parse import quote

import msgspec

from finseek.market.providers.base import Bar, Bars, ProviderError, bars_of
from finseek.market.providers.http import HttpSource

URL = "https://eodhd.com/api"


class _Row(Bar, frozen=True):
    warning: str | None = None


class Eodhd:
    """End-of-day bars of EODHD.

    Args:
        http: the connection, with the key in ``api_token``.
    """

    name = "eodhd"

    def __init__(self, http: HttpSource) -> None:
        self._http, self.source = http, http.base_url

    def fetch(self, symbol: str, start: date, end: date) -> Bars:
        """See ``Provider``."""
        asked = {"from": start.isoformat(), "to": end.isoformat(), "period": "d", "order": "a", "fmt": "json"}
        rows = self._http.get(f"eod/{quote(symbol, safe='')}", asked, _parse)
        notes = {row.warning for row in rows if row.warning}
        return bars_of(rows, symbol, start, end, "; ".join(sorted(notes)))

    def close(self) -> None:
        """See ``Provider``."""
        self._http.close()


def _parse(body: bytes) -> list[_Row]:
    try:
        return msgspec.json.decode(body, type=list[_Row])
    except msgspec.ValidationError as error:
        raise ProviderError(f"the answer is not a list of bars ({error})", "bad_answer") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        start = body.lstrip()[:1]
        what = "HTML" if start == b"<" else "truncated or no JSON"
        raise ProviderError(f"the answer is {what}", "bad_answer", transient=True) from None
