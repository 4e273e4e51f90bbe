"""A server on this machine that speaks EODHD's protocol, and plays what a real one does on bad days."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest

KEY = "5f3a-SECRET/key+of=mine"


@cache
def bars(symbol: str, first: date = date(2023, 1, 2), count: int = 600) -> list[dict]:
    """Bars of a symbol, the same on every call."""
    rng = np.random.default_rng(sum(symbol.encode()))
    days = np.busday_offset(np.datetime64(first), np.arange(count)).tolist()
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.02, count))), 2)
    rows = []
    for k, day in enumerate(days):
        open_ = round(float(close[k] * np.exp(rng.normal(0, 0.005))), 2)
        rows.append(
            {
                "date": day.isoformat(),
                "open": open_,
                "high": round(max(open_, float(close[k])) + 0.5, 2),
                "low": round(min(open_, float(close[k])) - 0.5, 2),
                "close": float(close[k]),
                "adjusted_close": float(close[k]),
                "volume": int(rng.integers(10**5, 10**7)),
            }
        )
    return rows


class Market:
    """What the server has and how it behaves.

    Attributes:
        script: by symbol, the behaviours of its next answers; ``normal`` when they are used up.
        factor: by symbol, multiplies adjusted_close of every bar before ``since`` (a later split or dividend).
        asked: (symbol, from, to) of every request, in order.
    """

    def __init__(self) -> None:
        self.script: dict[str, list[str]] = {}
        self.factor: dict[str, tuple[float, str]] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.tokens: set[str] = set()
        self.pause = 0.0
        self.url = ""

    def rows(self, symbol: str, start: str, end: str) -> list[dict]:
        factor, since = self.factor.get(symbol, (1.0, "0000"))
        found = []
        for row in bars(symbol):
            if start <= row["date"] <= end:
                scale = factor if row["date"] < since else 1.0
                found.append({**row, "adjusted_close": round(row["adjusted_close"] * scale, 6)})
        return found


def _handler(market: Market) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            symbol = unquote(parts.path.rsplit("/", 1)[1])
            market.tokens.add(query.get("api_token", ""))
            market.asked.append((symbol, query.get("from", ""), query.get("to", "")))
            time.sleep(market.pause)
            script = market.script.get(symbol, [])
            behaviour = script.pop(0) if script else "normal"
            rows = market.rows(symbol, query.get("from", ""), query.get("to", ""))
            whole = json.dumps(rows).encode()
            later = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
            if behaviour == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            if behaviour == "cut":  # the connection ends before the promised length
                self.answer(200, whole[: len(whole) // 2], {"Content-Length": str(len(whole))})
                self.close_connection = True
                return
            if behaviour == "slow":
                time.sleep(0.3)
            if behaviour == "hang":
                time.sleep(3)
            if behaviour == "types":
                rows[3]["close"] = "a hundred"
            if behaviour == "negative":
                rows[3]["close"] = -1.0
            if behaviour == "disorder":
                rows.reverse()
            if behaviour == "twice":
                rows.insert(4, rows[3])
            if behaviour == "contradiction":
                rows.insert(4, {**rows[3], "close": rows[3]["close"] + 1})
            if behaviour == "limited":
                rows = rows[-100:]
                rows[0]["warning"] = "Data is limited by one year"
            answers = {
                "402": (402, b"You exceeded your daily API requests limit.", {}),
                "401": (401, b"Unauthenticated", {}),
                "404": (404, b"Ticker Not Found.", {}),
                "429": (429, b"Too Many Requests", {}),
                "429-1": (429, b"Too Many Requests", {"Retry-After": "1"}),
                "429-date": (429, b"Too Many Requests", {"Retry-After": later}),
                "429-hour": (429, b"Too Many Requests", {"Retry-After": "3600"}),
                "500": (500, b"oops", {}),
                "echo": (400, f"bad request {self.path}".encode(), {}),
                "redirect": (302, b"", {"Location": f"http://127.0.0.1:9/?{parts.query}"}),
                "truncated": (200, whole[: len(whole) // 2], {}),
                "html": (200, b"<html><body>Maintenance</body></html>", {}),
                "html-echo": (200, f"<html>{self.path}</html>".encode(), {}),
                "object": (200, b'{"error": "nothing"}', {}),
                "empty": (200, b"[]", {}),
            }
            status, body, headers = answers.get(behaviour, (200, json.dumps(rows).encode(), {}))
            self.answer(status, body, headers)

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that was killed mid-answer is part of the play


@pytest.fixture
def market() -> Iterator[Market]:
    """The server; ``market.url`` is its address."""
    play = Market()
    server = _Server(("127.0.0.1", 0), _handler(play))
    play.url = f"http://127.0.0.1:{server.server_address[1]}/api"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield play
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def key() -> str:
    return KEY
