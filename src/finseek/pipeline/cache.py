"""What decides whether a stage must run again: code, config part and input hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import orjson

import finseek
from finseek.core.artifacts import sha256_file, sha256_json, write_bytes
from finseek.core.errors import ArtifactError

FileRecord = dict[str, Any]
"""{"sha256": hex, "bytes": int, "mtime_ns": int} of one file."""


def code_hash(packages: Iterable[str]) -> str:
    """SHA-256 over the source files of the named sub-packages, whatever their place on disk."""
    return hashlib.sha256(b"".join(map(_package_hash, sorted(packages)))).hexdigest()


@cache
def _package_hash(package: str) -> bytes:
    """Read once a process: the code that runs is the code that was there when it began."""
    root = Path(finseek.__file__).parent
    digest = hashlib.sha256()
    for source in sorted((root / package).rglob("*")):
        if source.suffix in {".py", ".html", ".css", ".js", ".json", ".j2"} and source.is_file():
            digest.update(source.relative_to(root).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(source.read_bytes()).digest())
    return digest.digest()


def record_files(root: Path, outputs: Iterable[str]) -> dict[str, FileRecord]:
    """Hash every file of the named outputs (files or folders below ``root``).

    Raises:
        ArtifactError: if an output is missing.
    """
    records: dict[str, FileRecord] = {}
    for output in outputs:
        path = root / output
        if not path.exists():
            raise ArtifactError(f"{path} was not written by its stage: this is an error of finseek, please report it")
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            status = file.stat()
            records[file.relative_to(root).as_posix()] = {
                "sha256": sha256_file(file),
                "bytes": status.st_size,
                "mtime_ns": status.st_mtime_ns,
            }
    return records


def unchanged(root: Path, records: Mapping[str, FileRecord]) -> bool:
    """Whether every recorded file is still what it was: by size and time, by hash where the time differs."""
    for name, record in records.items():
        file = root / name
        if not file.is_file():
            return False
        status = file.stat()
        if status.st_size != record["bytes"]:
            return False
        if status.st_mtime_ns != record["mtime_ns"] and sha256_file(file) != record["sha256"]:
            return False
    return True


def stage_key(name: str, code: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The key under which a stage's outputs are valid.

    Args:
        name: of the stage.
        code: hash of the code that it runs.
        config: the parts of the config that decide its outputs.
        inputs: SHA-256 of every input, by name.
    """
    return sha256_json({"stage": name, "code": code, "config": dict(config), "inputs": dict(inputs)})


class RunState:
    """``state.json``: what has been done in a run folder, and by which keys."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: dict[str, Any] = {"status": "new", "stage": None, "stages": {}}
        if path.exists():
            try:
                self._state = orjson.loads(path.read_bytes())
                for name, record in self._state["stages"].items():
                    if not {"key", "outputs", "counts", "seconds"} <= set(record):
                        raise KeyError(f"stages.{name}")
                self._state["stage"], self._state["status"]
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, OSError) as error:
                raise ArtifactError(f"{path} is damaged ({error}): delete it and every stage runs again") from None

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Finished stages by name: key, outputs, counts, seconds."""
        stages: dict[str, dict[str, Any]] = self._state["stages"]
        return stages

    def begin(self, run: dict[str, Any]) -> None:
        """Say what runs now, for whoever looks before there is a manifest."""
        self._write(status="running", stage=None, run=run)

    def enter(self, stage: str) -> None:
        """Say that a stage runs now; what it made before is no longer vouched for."""
        self.stages.pop(stage, None)
        self._write(status="running", stage=stage)

    def finish(self, stage: str, record: dict[str, Any]) -> None:
        """Say that a stage is done."""
        self.stages[stage] = record
        self._write(status="running", stage=None)

    def forget(self, stage: str) -> None:
        """Vouch no longer for what a stage made."""
        self.stages.pop(stage, None)

    def close(self, status: str) -> None:
        """Say how the run ended; of one that is done the manifest tells the rest."""
        if status == "done":
            self._state.pop("run", None)
        self._write(status=status, stage=self._state["stage"] if status == "failed" else None)

    def _write(self, **changes: Any) -> None:
        self._state.update(changes)
        write_bytes(self._path, orjson.dumps(self._state, option=orjson.OPT_INDENT_2) + b"\n")
