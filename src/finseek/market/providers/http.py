"""GET with retries, a rate limit and a key that nobody else gets to see."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import SecretStr
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from finseek.core.errors import InputError
from finseek.market.providers.base import ErrorKind, ProviderError

Answer = TypeVar("Answer")
MAX_BYTES = 64 << 20
LOG = logging.getLogger(__name__)

# status -> kind, whether to ask again, what the user can do
STATUS: dict[int, tuple[ErrorKind, bool, str]] = {
    401: ("key", False, "the key is not accepted: check it"),
    402: ("quota", False, "the quota of the subscription is used up: wait for its reset, or raise it"),
    403: ("key", False, "the key may not read this: check it and the subscription"),
    404: ("unknown_symbol", False, "the provider does not know the symbol: check it and its exchange"),
    408: ("server", True, "the server gave up waiting: try again"),
    429: ("throttled", True, "too many requests: lower prices.requests_per_minute, or try later"),
}


def _without(text: str, key: SecretStr | None) -> str:
    """The text with the key, as it is or percent-encoded, blotted out."""
    secret = key.get_secret_value() if key else ""
    if not secret:
        return text
    for form in (secret, quote(secret, safe=""), quote(secret)):
        text = text.replace(form, "***")
    return text


class _Blot(logging.Filter):
    """Blots the key out of what the transport logs: a redirect's Location may repeat the whole request."""

    LOGGERS = ("httpcore.http11", "httpcore.http2", "httpcore.connection", "httpcore.proxy")

    def __init__(self, key: SecretStr) -> None:
        super().__init__()
        self._key = key

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = _without(record.getMessage(), self._key), ()
        return True


class _KeyTransport(httpx.BaseTransport):
    """Adds the key to the request behind everything that logs, remembers or prints a URL."""

    def __init__(self, parameter: str, key: SecretStr) -> None:
        self._parameter, self._key = parameter, key
        self._inner = httpx.HTTPTransport()
        self._blot = _Blot(key)
        for name in _Blot.LOGGERS:
            logging.getLogger(name).addFilter(self._blot)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        failure = None
        try:
            return self._inner.handle_request(
                httpx.Request(
                    request.method,
                    request.url.copy_add_param(self._parameter, self._key.get_secret_value()),
                    headers=request.headers,
                    extensions=request.extensions,
                )
            )
        except httpx.TransportError as error:
            failure = type(error)(_without(str(error), self._key))
        # Raised out here, it carries neither the frames nor the context in which the key could be read.
        raise failure

    def close(self) -> None:
        self._inner.close()
        for name in _Blot.LOGGERS:
            logging.getLogger(name).removeFilter(self._blot)


class HttpSource:
    """One service.

    Args:
        base_url: https, or http on this machine.
        key: added to each request as ``key_parameter``; None for services without.
        key_parameter: name of the query parameter.
        requests_per_minute: requests are spaced evenly; 0 means no limit.
        attempts: how often one request is tried.
        backoff: first of the waits in seconds, doubled each time, with full jitter.
        max_wait: longest wait in seconds; a provider that asks for more is obeyed by giving up.
        timeout: seconds to connect and between two pieces of the answer; an answer may take ten times as long in all.

    Raises:
        InputError: the URL would send the key in the clear.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: SecretStr | None = None,
        key_parameter: str = "api_token",
        requests_per_minute: int = 600,
        attempts: int = 5,
        backoff: float = 0.5,
        max_wait: float = 60.0,
        timeout: float = 30.0,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise InputError(f"base_url {base_url} must be https, because the key is part of the request")
        self.base_url = base_url.rstrip("/")
        self._key = key
        self._deadline = 10 * timeout
        transport = _KeyTransport(key_parameter, key) if key else httpx.HTTPTransport()
        self._client = httpx.Client(transport=transport, timeout=timeout, trust_env=False)
        self._spacing = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._lock, self._next = threading.Lock(), 0.0
        self._attempts, self._max_wait = attempts, max_wait
        self._jitter = wait_random_exponential(multiplier=backoff, max=max_wait)

    def get(self, path: str, parameters: Mapping[str, str], parse: Callable[[bytes], Answer]) -> Answer:
        """GET and parse; both are tried again where that can help.

        Raises:
            ProviderError: the last failure.
        """
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, ProviderError) and error.transient),
            stop=stop_after_attempt(self._attempts),
            wait=self._wait,
            before_sleep=lambda state: LOG.info("%s: asking again in %.1f s", path, state.upcoming_sleep),
            reraise=True,
        )
        answer: Answer = retrying(self._once, path, parameters, parse)
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, ProviderError) else None
        return asked if asked is not None else self._jitter(state)

    def _once(self, path: str, parameters: Mapping[str, str], parse: Callable[[bytes], Answer]) -> Answer:
        self._take_turn()
        failure: ProviderError | None = None
        try:
            with self._client.stream("GET", f"{self.base_url}/{path}", params=dict(parameters)) as response:
                body = self._read(response, path)
        except httpx.TransportError as error:
            what = _without(str(error), self._key) or type(error).__name__
            failure = ProviderError(f"{path}: no answer ({what}): check the network", "network", transient=True)
        if failure:
            raise failure
        if response.status_code != 200:
            raise self._refusal(path, response, body)
        try:
            return parse(body)
        except ProviderError as error:
            failure = ProviderError(_without(f"{path}: {error}", self._key), error.kind, transient=error.transient)
        raise failure

    def _read(self, response: httpx.Response, path: str) -> bytes:
        until = time.monotonic() + self._deadline
        pieces, size = [], 0
        for piece in response.iter_bytes():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BYTES:
                raise ProviderError(f"{path}: the answer is larger than {MAX_BYTES >> 20} MiB", "bad_answer")
            if time.monotonic() > until:
                raise ProviderError(f"{path}: the answer took over {self._deadline:.0f} s", "network", transient=True)
        # A server may echo the request: what is kept of its answer, if only in a frame, is without the key.
        return _without(b"".join(pieces).decode("latin-1"), self._key).encode("latin-1")

    def _refusal(self, path: str, response: httpx.Response, body: bytes) -> ProviderError:
        status = response.status_code
        other: tuple[ErrorKind, bool, str] = ("refused", False, "the request was refused")
        if status >= 500:
            other = ("server", True, "the server failed: try again later")
        kind, transient, advice = STATUS.get(status, other)
        wait = retry_after(response.headers.get("Retry-After"), datetime.now(UTC)) if transient else None
        if wait is not None and wait > self._max_wait:
            transient, advice = False, f"it wants to be asked again in {wait:.0f} s"
        said = _without(" ".join(body[:2000].decode("utf-8", "replace").split()), self._key)[:120]
        said = "" if said.startswith("<") else said
        return ProviderError(
            f"{path}: HTTP {status}{f' {said!r}' if said else ''}: {advice}",
            kind,
            transient=transient,
            retry_after=wait,
        )

    def _take_turn(self) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._spacing
        if turn > now:
            time.sleep(turn - now)


def retry_after(header: str | None, now: datetime) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3: a number or an HTTP date); None where it says nothing."""
    if not header:
        return None
    text = header.strip()
    if text.isdigit():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max((until - now).total_seconds(), 0.0)
