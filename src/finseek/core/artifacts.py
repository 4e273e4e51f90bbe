"""Files that appear whole or not at all, and their SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finseek.core.errors import ArtifactError, InputError

PARTIAL = ".partial"
BLOCKS, BLOCK = 32, 1 << 16  # of a large file that are looked at


def _partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it is synced and renamed into place if the body succeeds."""
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a file to write: name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_of(path)
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside ``path``; it replaces ``path`` if the body succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_of(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            old = partial.with_suffix(".old" + PARTIAL)
            path.rename(old)
            partial.rename(path)
            shutil.rmtree(old)
        else:
            partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_foreign(folder: Path, known: str) -> None:
    """Refuse to replace a folder that holds anything but what the same command wrote there before.

    Args:
        folder: that would be replaced, or is not there.
        known: pattern of the names that may go.

    Raises:
        InputError: with the first other name.
    """
    if folder.is_file() or not folder.name:
        raise InputError(f"{folder} is no folder that can be made anew: name a new one")
    others = (path.name for path in folder.iterdir()) if folder.is_dir() else iter(())
    strange = min((name for name in others if not re.fullmatch(known, name)), default=None)
    if strange is not None:
        raise InputError(f"{folder} holds {strange}, which would be lost: name a new or empty folder")


def remove_partials(folder: Path) -> None:
    """Delete what a killed process left half-written below ``folder``."""
    for left_over in folder.rglob(f".*{PARTIAL}"):
        if left_over.is_dir():
            shutil.rmtree(left_over, ignore_errors=True)
        else:
            left_over.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON; NaN and infinities are refused, absence is null."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that finseek wrote.

    Raises:
        ArtifactError: if it is missing or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: run the stage that writes it") from None
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged ({error}): run the stage that writes it again") from None


def write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Write lines (without their newline) and return how many there were."""
    count = 0
    with atomic_file(path) as partial, partial.open("wb", buffering=1 << 20) as out:
        for line in lines:
            out.write(line + b"\n")
            count += 1
    return count


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def probe_file(path: Path) -> str:
    """SHA-256 of blocks spread over a file, all of a small one: weights are too large to be read for their name.

    Two models of one shape have files of one size and one header; training moves every matrix, so some block tells.
    """
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as content:
        if size <= BLOCKS * BLOCK:
            digest.update(content.read())
        else:
            for place in range(BLOCKS):
                content.seek((size - BLOCK) * place // (BLOCKS - 1))
                digest.update(content.read(BLOCK))
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no white space), in hex."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
