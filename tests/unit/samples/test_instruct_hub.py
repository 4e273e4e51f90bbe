"""Instruction data by hub id: the real client against a server on the loopback that speaks the hub's protocol."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import pytest

COMMIT = "a" * 40
ROWS = [{"system": "\n" if i % 3 else f"You are {i}.", "user": f"q{i}", "assistant": f"a{i}"} for i in range(30)]


def parquet() -> bytes:
    packed = io.BytesIO()
    pl.DataFrame(ROWS).write_parquet(packed)
    return packed.getvalue()


REPOSITORIES = {
    "acme/rows": {"README.md": b"---\nlicense: mit\n---\n", "data/train-00000-of-00001.parquet": parquet()},
    "acme/broken": {"train.jsonl": b'{"system": "", "user": "q", "assistant": "a"}\n{"system'},
    "acme/untrained": {"test.jsonl": b'{"system": "", "user": "q", "assistant": "a"}\n'},
}


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def answer_json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def do_GET(self) -> None:
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[:2] == ["api", "datasets"] and "/".join(parts[2:4]) in REPOSITORIES:
            self.api("/".join(parts[2:4]), parts[4:])
        elif parts[0] == "datasets" and "/".join(parts[1:3]) in REPOSITORIES:
            self.file(REPOSITORIES["/".join(parts[1:3])], "/".join(parts[5:]))
        else:
            self.answer(404, X_Error_Code="RepoNotFound" if parts[0] == "api" else "EntryNotFound")

    do_HEAD = do_GET

    def api(self, name: str, rest: list[str]) -> None:
        files = REPOSITORIES[name]
        if rest[:1] == ["tree"]:
            below = "/".join([*rest[2:], ""])
            tops = {path.removeprefix(below).split("/")[0] for path in files if path.startswith(below)}
            self.answer_json([self.entry(files, below + top) for top in sorted(tops)])
        else:
            described = {"_id": "1", "id": name, "sha": COMMIT, "private": False, "gated": False, "disabled": False}
            self.answer_json({**described, "tags": [], "siblings": [{"rfilename": path} for path in files]})

    @staticmethod
    def entry(files: dict[str, bytes], path: str) -> dict[str, object]:
        if path not in files:
            return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        return {"type": "file", "path": path, "oid": sha1(files[path]).hexdigest(), "size": len(files[path])}

    def file(self, files: dict[str, bytes], path: str) -> None:
        if path not in files:
            self.answer(404, X_Error_Code="EntryNotFound")
            return
        content = files[path]
        known = {"ETag": f'"{sha1(content).hexdigest()}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
        if asked := self.headers.get("Range"):
            first, last = asked.removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last or len(content)), len(content) - 1)
            place = f"bytes {start}-{end}/{len(content)}"
            self.answer(206, content[start : end + 1], Content_Range=place, **known)
        else:
            self.answer(200, content, **known)


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def convert(hub: str, source: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "finseek.cli.main", "instruct", "convert", source, "out", "--json", *options]
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(folder / "home")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_hub_id_gives_what_its_file_gives(hub: str, tmp_path: Path) -> None:
    done = convert(hub, "hub:acme/rows", tmp_path, "--set", "instruct.conversation_extension=2")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["found"], summary["kept"]) == (30, 30)
    (tmp_path / "out").rename(tmp_path / "from-hub")
    (tmp_path / "rows.parquet").write_bytes(REPOSITORIES["acme/rows"]["data/train-00000-of-00001.parquet"])
    assert convert(hub, "rows.parquet", tmp_path, "--set", "instruct.conversation_extension=2").returncode == 0
    for name in ("training.jsonl", "validation.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "from-hub" / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "part"), [("absent", "Not Found"), ("broken", "cannot be read"), ("untrained", "Bad split: train")]
)
def test_what_the_hub_cannot_give_is_one_line(hub: str, tmp_path: Path, name: str, part: str) -> None:
    done = convert(hub, f"hub:acme/{name}", tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("finseek:")]
    assert f"hub:acme/{name}" in line
    assert part in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
