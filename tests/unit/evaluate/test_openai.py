from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from finseek.core.errors import FinseekError, InputError
from finseek.evaluate import EvaluateOptions, load_backend, predict, score_predictions
from finseek.evaluate.answers import AnswerStore
from finseek.evaluate.ask import usage
from finseek.evaluate.backends.openai import _action_log_p, _Token
from finseek.market import generate_prices, write_prices
from finseek.pipeline import load_config, run
from finseek.samples import Sample
from finseek.theses.synthetic import generate_theses, write_theses_xml

KEY = "sk-do-not-tell"


def asked(n: int) -> list[Sample]:
    metadata = {"as_of_date": "2025-01-02", "action": "BUY"}
    return [Sample(f"question {i}", "", {**metadata, "ticker": f"T{i}"}) for i in range(n)]


def options(url: str, **server) -> EvaluateOptions:
    settings = {"model": "m", "pause_seconds": 0.001, "timeout_seconds": 5.0, **server}
    return EvaluateOptions(mode="generate", backend="openai", max_new_tokens=40, openai={"base_url": url, **settings})


class Server(ThreadingHTTPServer):
    """Answers `<action>BUY</action>` with the question in its reasoning, or what ``chaos`` does instead."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, chaos=None, upstream=None, seconds=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.chaos, self.upstream, self.seconds = chaos or (lambda question, attempt: "fine"), upstream, seconds
        self.attempts, self.answered, self.headers = Counter(), Counter(), []
        self.lock, self.in_flight, self.most = threading.Lock(), 0, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        here = self.server
        body = self.rfile.read(int(self.headers["content-length"]))
        question = json.loads(body)["messages"][-1]["content"]
        with here.lock:
            here.in_flight += 1
            here.most = max(here.most, here.in_flight)
            attempt = here.attempts[question]
            here.attempts[question] += 1
            here.headers.append(self.headers.get("authorization"))
        time.sleep(here.seconds)
        try:
            getattr(self, here.chaos(question, attempt))(question, body)
        finally:
            with here.lock:
                here.in_flight -= 1

    def reply(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def answer(self, question: str, body: bytes) -> bytes:
        if self.server.upstream:
            request = urllib.request.Request(
                f"{self.server.upstream}/chat/completions", body, {"content-type": "application/json"}
            )
            return urllib.request.urlopen(request, timeout=60).read()
        text = f"<action>BUY</action>\n<reasoning>{question}</reasoning>"
        usage = {"prompt_tokens": 7, "completion_tokens": 5}
        choice = {"message": {"content": text}}
        if json.loads(body).get("logprobs"):
            pieces = ["<act", "ion>", "B", "UY", "</", "action>\n", "<reasoning>", question, "</reasoning>"]
            choice["logprobs"] = {"content": [{"token": p, "logprob": -0.1, "top_logprobs": []} for p in pieces]}
        return json.dumps({"choices": [choice], "usage": usage}).encode()

    def fine(self, question, body):
        content = self.answer(question, body)
        with self.server.lock:
            self.server.answered[question] += 1
        self.reply(200, content)

    def dropped(self, question, body):
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def throttled(self, question, body):
        self.reply(429, b"slow down", retry_after="0.01")

    def broken(self, question, body):
        self.reply(500, b"oops")

    def unavailable(self, question, body):
        self.reply(503, b"{}", retry_after="Wed, 21 Oct 2065 07:28:00 GMT")

    def cut(self, question, body):
        content = self.answer(question, body)
        self.reply(200, content[: len(content) // 2], content_length=str(len(content)))
        self.close_connection = True

    def wrong_json(self, question, body):
        self.reply(200, b'{"choices": [')

    def wrong_shape(self, question, body):
        self.reply(200, b'{"error": {"message": "overloaded"}}')

    def slow(self, question, body):
        time.sleep(0.6)
        self.fine(question, body)

    def refused(self, question, body):
        self.reply(401, f"bad key {KEY}".encode())


@contextmanager
def running(*args, **kwargs):
    server = Server(*args, **kwargs)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


TROUBLE = ("dropped", "throttled", "broken", "unavailable", "cut", "wrong_json", "wrong_shape", "slow")


def chaos(question: str, attempt: int) -> str:
    """Two or three troubles before each answer, of all kinds."""
    number = int("".join(filter(str.isdigit, question)) or 0)
    return TROUBLE[(number + 3 * attempt) % len(TROUBLE)] if attempt < 2 + number % 2 else "fine"


def test_a_hostile_network_loses_and_doubles_nothing(tmp_path):
    samples = asked(120)
    with running(chaos) as server:
        settings = options(server.url, timeout_seconds=0.5)
        rows = predict(samples, load_backend(settings, None, api_key=KEY), settings, answers=tmp_path / "a.jsonl")
    assert [row.ticker for row in rows] == [sample.metadata["ticker"] for sample in samples]
    assert all(sample.input in row.completion for row, sample in zip(rows, samples, strict=True))
    assert all(row.pred_action == "BUY" for row in rows)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["key"] for line in lines}) == 120
    assert KEY not in (tmp_path / "a.jsonl").read_text()
    assert set(server.headers) == {f"Bearer {KEY}"}
    with AnswerStore(tmp_path / "a.jsonl") as store:
        kept = [store[json.loads(line)["key"]] for line in lines]
    priced = options(server.url, input_price=2.0, output_price=10.0)
    assert usage(kept, priced) == {
        "answers": 120, "prompt_tokens": 840, "generated_tokens": 600, "cost": pytest.approx(0.00768)
    }  # fmt: skip


def test_sixty_four_requests_are_in_flight():
    with running(seconds=0.4) as server:
        settings = options(server.url)
        rows = predict(asked(200), load_backend(settings, None), settings)
    assert len({row.ticker for row in rows}) == 200
    assert 60 <= server.most <= 64
    assert set(server.answered.values()) == {1}
    assert set(server.headers) == {None}


def test_an_outage_keeps_what_was_answered_and_goes_on_later(tmp_path):
    samples = asked(30)
    with running(lambda question, attempt: "fine" if int(question.split()[1]) < 20 else "broken") as server:
        settings = options(server.url, max_attempts=3, concurrency=4)
        with pytest.raises(FinseekError, match=r"T2\d 2025-01-02 in 3 attempts \(HTTP 500\)"):
            predict(samples, load_backend(settings, None), settings, answers=tmp_path / "a.jsonl")
        assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 20
        server.chaos = lambda question, attempt: "fine"
        rows = predict(samples, load_backend(settings, None), settings, answers=tmp_path / "a.jsonl")
        assert server.answered == Counter({sample.input: 1 for sample in samples})
    assert all(row.pred_action == "BUY" for row in rows)


def test_a_refusal_ends_the_work_at_once_and_does_not_tell_the_key(caplog):
    caplog.set_level("DEBUG")
    with running(lambda question, attempt: "refused") as server:
        settings = options(server.url, concurrency=1)
        with pytest.raises(InputError, match="HTTP 401") as caught:
            predict(asked(3), load_backend(settings, None, api_key=KEY), settings)
        assert server.attempts["question 0"] == 1
    assert KEY not in str(caught.value) + caplog.text


def test_log_probabilities_tell_how_sure_an_answer_is(tmp_path):
    with running() as server:
        settings = options(server.url, logprobs=True)
        rows = predict(asked(3), load_backend(settings, None), settings, answers=tmp_path / "a.jsonl")
        assert predict(asked(3), load_backend(settings, None), settings, answers=tmp_path / "a.jsonl") == rows
        plain = predict(asked(3), load_backend(options(server.url), None), options(server.url))
    # B, UY, </, action>: what follows the opening tag, up to the end of the closing one
    assert [row.confidence for row in rows] == [pytest.approx(math.exp(-0.4))] * 3
    assert [row.confidence for row in plain] == [None] * 3
    found = score_predictions(rows, None, EvaluateOptions(bootstrap_resamples=100)).calibration
    assert (found["rows"], found["rows_with_five_probabilities"], found["brier"]["value"]) == (3, 0, None)
    assert found["mean_confidence"]["value"] == pytest.approx(math.exp(-0.4))
    assert found["expected_calibration_error"]["value"] == pytest.approx(1 - math.exp(-0.4))


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["<action>", "HOLD", "</action>"], 2),
        (["<action>H", "OLD</action><support>", "x", "</support>"], 2),
        (["<reasoning>", "r", "</reasoning>", "<action>", "BUY</", "action>"], 2),
        (["<action>", "BUY"], None),
        (["<action>BUY</action>", "<action>BUY</action>"], None),
        (["I would not buy"], None),
        ([], None),
    ],
)
def test_only_the_one_action_counts(pieces, expected):
    tokens = [_Token(piece, -1.0) for piece in pieces]
    assert _action_log_p(tokens) == (None if expected is None else -expected)


def test_the_rate_limit_spaces_the_requests():
    with running() as server:
        settings = options(server.url, requests_per_minute=1200)
        start = time.monotonic()
        predict(asked(7), load_backend(settings, None), settings)
        assert time.monotonic() - start >= 6 * 0.05


def test_score_mode_and_a_missing_address_are_refused():
    with pytest.raises(ValueError, match="set mode to generate"):
        EvaluateOptions(backend="openai")
    with pytest.raises(InputError, match="base_url"):
        load_backend(EvaluateOptions(backend="openai", mode="generate"), None)
    with pytest.raises(InputError, match="needs the folder"):
        load_backend(EvaluateOptions(), None)


def test_a_real_server_behind_a_hostile_network_answers_as_the_native_model(memoriser, tmp_path):
    """`transformers serve` with the toy checkpoint, through the chaos proxy."""
    folder, samples = memoriser("action first")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path)}
    command = [str(program), "serve", str(folder), "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        with running(chaos, upstream=f"http://127.0.0.1:{port}/v1") as proxy:
            settings = options(proxy.url, model=str(folder), timeout_seconds=60.0)
            rows = predict(samples, load_backend(settings, None), settings, answers=tmp_path / "a.jsonl")
    finally:
        process.terminate()
        process.wait(20)
    native = EvaluateOptions(mode="generate", max_new_tokens=40)
    expected = predict(samples, load_backend(native, folder), native)
    assert [row.completion for row in rows] == [row.completion for row in expected]
    assert {row.status for row in rows} == {"scored"}


def test_a_run_on_a_server_trains_nothing_tells_no_key_and_goes_on_after_an_outage(tmp_path):
    prices, planted = generate_prices(0, n_tickers=3, n_sessions=150)
    write_prices(prices, tmp_path / "prices.parquet")
    theses = generate_theses(planted.signal, prices.sessions, prices.tickers, seed=0).theses
    write_theses_xml(theses, tmp_path / "theses")
    with running() as server:
        told = {
            "theses": {"source": str(tmp_path / "theses")},
            "prices": {"source": str(tmp_path / "prices.parquet")},
            "split": {"train_end": "2022-06-30", "test_start": "2022-07-01", "validation_days": 20},
            "prompt": {"as_of_date": True},
            "evaluate": {
                **{"backend": "openai", "mode": "generate", "max_new_tokens": 40, "bootstrap_resamples": 100},
                "openai": {"base_url": server.url, "model": "m", "pause_seconds": 0.001, "input_price": 1.0},
            },
            "backtest": {"nulls": 5},
        }

        def outcome(name: str, behaviour) -> Path:
            server.chaos = behaviour
            told["run"] = {"output_dir": str(tmp_path / "runs"), "name": name}
            (tmp_path / "config.yaml").write_text(yaml.safe_dump(told))
            loaded = load_config(tmp_path / "config.yaml", (), {"OPENAI_API_KEY": KEY})
            assert KEY not in repr(loaded)
            return run(loaded).paths.root

        def dying(question: str, attempt: int) -> str:
            return "refused" if server.answered.total() > 20 else "fine"

        calm = outcome("calm", lambda question, attempt: "fine")
        asked_for = server.answered.total()
        assert asked_for == len(set(server.answered)) > 50
        server.answered.clear()
        server.attempts.clear()
        with pytest.raises(InputError, match="HTTP 401"):
            outcome("stormy", dying)
        server.attempts.clear()
        stormy = outcome("stormy", chaos)
        assert set(server.answered.values()) == {1}
        assert server.answered.total() == asked_for
        assert set(server.headers) == {f"Bearer {KEY}"}
    for name in ("eval_results.csv", "metrics.json"):
        assert (calm / "evaluate" / name).read_bytes() == (stormy / "evaluate" / name).read_bytes()
    metrics = json.loads((stormy / "evaluate" / "metrics.json").read_text())
    assert metrics["usage"]["answers"] == metrics["rows"]["scored"] == metrics["rows"]["total"] == asked_for
    assert metrics["usage"]["cost"] == pytest.approx(7e-6 * asked_for)
    assert not (stormy / "train" / "checkpoint").exists()
    assert json.loads((stormy / "audit" / "contamination.json").read_text())["status"] == "failed"
    for file in stormy.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()
