"""Files of a source in sorted order, archives opened in memory, nothing unpacked to disk."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from finseek.core.errors import InputError
from finseek.theses.options import ThesesOptions
from finseek.theses.refuse import Refused

KINDS = {
    ".xml": "xml",
    ".txt": "xml",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
ARCHIVES = (".gz", ".zip")

_UNREADABLE = (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True)
class Document:
    """One file that may hold theses.

    Attributes:
        name: its path below the source, members of archives after a ``!``.
        kind: ``xml``, ``jsonl``, ``csv``, ``parquet``, or empty where ``problem`` says why it is not read.
        content: its bytes.
        problem: why it is not read.
    """

    name: str
    kind: str
    content: bytes
    problem: Refused | None = None


def documents(source: Path, options: ThesesOptions) -> Iterator[Document]:
    """Every file of a folder (recursively), an archive, or the one file that ``source`` is.

    Links to folders are not followed; what is neither file nor folder is named and not opened.

    Raises:
        InputError: the source does not exist or is a folder without files.
    """
    if source.is_dir():
        paths = sorted((p for p in source.rglob("*") if not p.is_dir() or p.is_symlink()), key=lambda p: p.as_posix())
        if not paths:
            raise InputError(f"theses.source {source} is a folder without files: put theses into it")
        for path in paths:
            yield from _file(path, path.relative_to(source).as_posix(), options)
    elif source.exists():
        yield from _file(source, source.name, options)
    else:
        raise InputError(f"theses.source {source} does not exist: name a folder, a file or an archive of theses")


def _file(path: Path, name: str, options: ThesesOptions) -> Iterator[Document]:
    if not path.is_file():
        yield _refused(name, "unreadable_file", f"{name} is no regular file: remove it")
        return
    try:
        _kind_of(name)
        with path.open("rb") as content:
            yield from _open(content, name, options, depth=0)
    except Refused as refused:
        yield Document(name, "", b"", refused)
    except OSError as error:
        yield _refused(name, "unreadable_file", f"{name} cannot be read ({error.strerror or error})")


def _open(
    content: IO[bytes], name: str, options: ThesesOptions, depth: int, size: int | None = None
) -> Iterator[Document]:
    """The documents in one file, opened already; archives open their members the same way, and may know their size."""
    try:
        suffix = _kind_of(name)
        if depth > options.max_archive_depth:
            raise Refused("archive_too_deep", f"{name} is nested deeper than theses.max_archive_depth {depth - 1}")
        if suffix == ".zip":
            yield from _zip(content, name, options, depth)
            return
        if suffix == ".gz":
            with gzip.GzipFile(fileobj=content) as unpacked:
                data = _read(unpacked, name, options)
            inner = name[: -len(".gz")]
            if PurePosixPath(inner).suffix.lower() not in (*KINDS, *ARCHIVES):
                inner += ".xml"
            for document in _open(io.BytesIO(data), inner, options, depth + 1):
                yield Document(document.name.replace(inner, name, 1), document.kind, document.content, document.problem)
            return
        yield Document(name, KINDS[suffix], _read(content, name, options, size))
    except Refused as refused:
        yield Document(name, "", b"", refused)
    except _UNREADABLE as error:
        what = "unreadable_archive" if name.lower().endswith(ARCHIVES) else "unreadable_file"
        yield _refused(name, what, f"{name} cannot be read ({type(error).__name__}: {error}): pack or copy it again")


def _zip(content: IO[bytes], name: str, options: ThesesOptions, depth: int) -> Iterator[Document]:
    with zipfile.ZipFile(content) as archive:
        members = sorted((m for m in archive.infolist() if not m.is_dir()), key=lambda m: m.filename)
        if not members:
            raise Refused("empty_file", f"{name} is an archive without files")
        for member in members:
            inside = PurePosixPath(member.filename.replace("\\", "/"))
            label = f"{name}!{member.filename}"
            if inside.is_absolute() or ".." in inside.parts or ":" in inside.parts[0]:
                yield _refused(label, "unsafe_path", f"{label} points outside of its archive: pack it again")
                continue
            if member.file_size > options.max_file_bytes:
                yield _refused(label, "file_too_large", _too_large(label, member.file_size, options))
                continue
            try:
                with archive.open(member) as opened:
                    yield from _open(opened, label, options, depth + 1, member.file_size)
            except _UNREADABLE as error:
                yield _refused(label, "unreadable_archive", f"{label} cannot be unpacked ({error}): pack it again")


def _kind_of(name: str) -> str:
    suffix = PurePosixPath(name.rpartition("!")[2]).suffix.lower()
    if suffix not in KINDS and suffix not in ARCHIVES:
        known = ", ".join([*KINDS, *ARCHIVES])
        raise Refused("unsupported_file", f"{name} ends in none of {known}: rename or remove it")
    return suffix


def _read(content: IO[bytes] | gzip.GzipFile, name: str, options: ThesesOptions, size: int | None = None) -> bytes:
    # Told how much will come, zlib unpacks in two thirds of the time: its buffer grows to no more.
    data = content.read((options.max_file_bytes if size is None else size) + 1)
    if len(data) > options.max_file_bytes:
        raise Refused("file_too_large", _too_large(name, len(data), options))
    return data


def _too_large(name: str, size: int, options: ThesesOptions) -> str:
    return f"{name} has {size} bytes or more, theses.max_file_bytes is {options.max_file_bytes}"


def _refused(name: str, reason: str, detail: str) -> Document:
    return Document(name, "", b"", Refused(reason, detail))
