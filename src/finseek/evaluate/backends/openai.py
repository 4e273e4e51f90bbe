"""Any server that speaks OpenAI's chat completions: vLLM, SGLang, NIM, llama.cpp, DeepSeek's own.

Up to ``concurrency`` requests are in flight. A request that is dropped, cut, throttled, answered by a server error or
by something that is no completion is asked again after a growing pause (or the server's Retry-After), up to
``max_attempts``; then the work fails, and what was answered until then is kept. The key stands in a header of the
requests and nowhere else: no message, log or identity holds it.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import msgspec

from finseek.core.artifacts import sha256_json
from finseek.core.errors import FinseekError, InputError
from finseek.evaluate.backends.base import Answer
from finseek.evaluate.options import EvaluateOptions
from finseek.samples import Sample

LONGEST_PAUSE = 60.0
_ACTION = re.compile("<action>([^<]*</action>)")


class _Message(msgspec.Struct):
    content: str | None = None


class _Token(msgspec.Struct):
    token: str
    logprob: float


class _LogProbs(msgspec.Struct):
    content: list[_Token] | None = None


class _Choice(msgspec.Struct):
    message: _Message
    logprobs: _LogProbs | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class _TryAgain(Exception):
    """Why a request must be repeated, and after how long the server wants it."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class OpenAIBackend:
    """Asks a server, one request a sample.

    Args:
        options: sampling, and the part ``openai``: base_url, model, concurrency, timeouts, attempts, rate.
        api_key: sent as a bearer token; None sends none.
        seed: sent to the server, and of the jitter of the pauses.

    Raises:
        InputError: no base_url or model.
    """

    def __init__(self, options: EvaluateOptions, api_key: str | None = None, seed: int = 0) -> None:
        server = options.openai
        if not server.base_url or not server.model:
            raise InputError("the openai back end needs evaluate.openai.base_url and evaluate.openai.model: set both")
        import httpx

        self.options, self.server, self.seed, self._key = options, server, seed, api_key
        self._url = f"{server.base_url.rstrip('/')}/chat/completions"
        self._limits = httpx.Limits(max_connections=server.concurrency, max_keepalive_connections=server.concurrency)
        self._pace = _Pace(server.requests_per_minute)
        self.identity = sha256_json(
            {
                "backend": "openai",
                "base_url": server.base_url,
                "model": server.model,
                "sampling": options.model_dump(mode="json", include={"max_new_tokens", "temperature", "top_p"}),
                "seed": seed if options.temperature else None,
                **({"logprobs": True} if server.logprobs else {}),
            }
        )

    def reseeded(self, seed: int) -> OpenAIBackend:
        """The same server with another seed."""
        return OpenAIBackend(self.options, self._key, seed)

    def plan(self, samples: Sequence[Sample]) -> list[list[int]]:
        """Every sample by itself."""
        return [[i] for i in range(len(samples))]

    def answers(self, batches: Iterable[Sequence[Sample]]) -> Iterator[tuple[int, list[Answer]]]:
        """Answers as they arrive.

        Raises:
            FinseekError: a request failed for good; what was in flight was waited for and given out.
        """
        import httpx

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        stopped = threading.Event()
        waiting: dict[Future[list[Answer]], int] = {}
        todo = enumerate(batches)
        failure: BaseException | None = None
        with (
            httpx.Client(headers=headers, timeout=self.server.timeout_seconds, limits=self._limits) as client,
            ThreadPoolExecutor(self.server.concurrency) as pool,
        ):
            try:
                while True:
                    while not failure and len(waiting) < self.server.concurrency and (work := next(todo, None)):
                        number, batch = work
                        waiting[pool.submit(self._ask_all, client, batch, stopped)] = number
                    if not waiting:
                        break
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        number, error = waiting.pop(future), future.exception()
                        if error is None:
                            yield number, future.result()
                        else:  # what is in flight may still be answered, and has its price: it is waited for
                            failure = failure or error
                            stopped.set()
            finally:
                stopped.set()
        if failure:
            raise failure

    def _ask_all(self, client: Any, batch: Sequence[Sample], stopped: threading.Event) -> list[Answer]:
        return [self._ask(client, sample, stopped) for sample in batch]

    def _ask(self, client: Any, sample: Sample, stopped: threading.Event) -> Answer:
        jitter = random.Random(f"{self.seed}{sample.input}")
        for attempt in range(1, self.server.max_attempts + 1):
            self._pace.wait(stopped)
            try:
                return self._request(client, sample)
            except _TryAgain as again:
                reason = str(again)
                pause = again.after if again.after is not None else self.server.pause_seconds * 2 ** (attempt - 1)
                if attempt < self.server.max_attempts and stopped.wait(
                    min(pause, LONGEST_PAUSE) * (0.5 + jitter.random())
                ):
                    break
        raise FinseekError(
            f"{self.server.base_url} gave no answer for {sample.metadata.get('ticker')} "
            f"{sample.metadata.get('as_of_date')} in {self.server.max_attempts} attempts ({reason}): run again to go on"
        )

    def _request(self, client: Any, sample: Sample) -> Answer:
        import httpx

        body = {
            "model": self.server.model,
            "messages": [{"role": "user", "content": sample.input}],
            "max_tokens": self.options.max_new_tokens,
            "temperature": self.options.temperature,
            "top_p": self.options.top_p,
            "stream": False,
        }
        if self.options.temperature:
            body["seed"] = self.seed
        if self.server.logprobs:
            body["logprobs"] = True
        try:
            response = client.post(self._url, json=body)
        except httpx.TransportError as error:
            raise _TryAgain(type(error).__name__) from None
        if response.status_code in (408, 409, 425, 429) or response.status_code >= 500:
            raise _TryAgain(f"HTTP {response.status_code}", _retry_after(response.headers.get("retry-after")))
        if response.status_code != 200:
            raise InputError(
                f"{self.server.base_url} refuses the request with HTTP {response.status_code}: "
                "check evaluate.openai.base_url, evaluate.openai.model and the key"
            )
        try:
            completion = msgspec.json.decode(response.content, type=_Completion)
            choice = completion.choices[0]
        except (msgspec.MsgspecError, UnicodeDecodeError, IndexError):
            raise _TryAgain("the response is no chat completion") from None
        usage = completion.usage or _Usage()
        sure = _action_log_p(choice.logprobs.content or []) if choice.logprobs else None
        return Answer(choice.message.content or "", None, usage.completion_tokens, usage.prompt_tokens, sure)


def _action_log_p(tokens: Sequence[_Token]) -> float | None:
    """Summed log-probability of the tokens that reach into the one action element, after its opening tag."""
    places = list(_ACTION.finditer("".join(token.token for token in tokens)))
    if len(places) != 1:
        return None
    (place,) = places
    total, end = 0.0, 0
    for token in tokens:
        start, end = end, end + len(token.token)
        if start < place.end() and end > place.start(1):
            total += token.logprob
    return total


class _Pace:
    """Lets through at most so many requests a minute, evenly."""

    def __init__(self, per_minute: int | None) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next, self._lock = 0.0, threading.Lock()

    def wait(self, stopped: threading.Event) -> None:
        """Return when the next request may go out, or the work has stopped."""
        if not self._gap:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._gap
        stopped.wait(start - now)


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header; a date, or nonsense, is None."""
    try:
        return max(float(value), 0.0) if value else None
    except ValueError:
        return None
