"""The ledger of a conversion: every tensor with its shape, type, origin and hash.

While the work runs, each process appends to its own journal, one line a finished shard, synced before the next; a line
that a crash cut off is ignored. At the end the journals become one ledger, and disappear.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finseek.checkpoint.stream.digest import algorithm_of
from finseek.core.artifacts import write_lines
from finseek.core.errors import InputError

LEDGER = "finseek_ledger.jsonl"
JOURNALS = ".finseek-journal-*.jsonl"


@dataclass(frozen=True)
class Entry:
    """One tensor of the new checkpoint.

    Attributes:
        name, dtype, shape, shard: as in the new checkpoint.
        digest: of its bytes, `algorithm:hex`.
        source: name in the old checkpoint.
        source_shard, source_dtype: its file and type there.
        nonfinite: how many numbers of the source are NaN or infinite.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: str
    digest: str
    source: str
    source_shard: str
    source_dtype: str
    nonfinite: int


@dataclass(frozen=True)
class Ledger:
    """What a conversion was and what it wrote.

    Attributes:
        job: everything that decides the result: fingerprint of the source and options.
        entries: by name, in the order of files and bytes.
    """

    job: Mapping[str, Any]
    entries: Mapping[str, Entry]


def write_ledger(folder: Path, job: Mapping[str, Any], entries: Iterable[Entry]) -> None:
    """Write the ledger, whole or not at all."""
    head = {"finseek_ledger": 2, "job": job}
    write_lines(folder / LEDGER, (json.dumps(line).encode() for line in (head, *(asdict(entry) for entry in entries))))


def read_ledger(folder: Path) -> Ledger | None:
    """The ledger of a folder, or None if it has none.

    Raises:
        InputError: it is damaged.
    """
    path = folder / LEDGER
    if not path.is_file():
        return None
    try:
        head, *lines = (json.loads(line) for line in path.read_bytes().splitlines())
        entries = {line["name"]: _entry(line) for line in lines}
        return Ledger(head["job"], entries)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: damaged ({error}); convert again, or delete it and verify against the source"
        ) from None


def _entry(line: dict[str, Any]) -> Entry:
    algorithm_of(line["digest"])
    return Entry(**{**line, "shape": tuple(line["shape"])})


class Journal:
    """What this process has finished; locked, so that no second conversion writes into the same folder.

    Args:
        folder: of the new checkpoint.
        job: as in `Ledger`.
        rank: of this process.

    Raises:
        InputError: another process is at work in the folder.
    """

    def __init__(self, folder: Path, job: Mapping[str, Any], rank: int) -> None:
        path = folder / JOURNALS.replace("*", f"{rank:05d}")
        self.file = path.open("ab")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise InputError(f"{folder}: another process is converting into it; wait for it, or stop it") from None
        except OSError:
            pass  # a file system without locks
        if self.file.tell() and not path.read_bytes().endswith(b"\n"):
            self.file.write(b"\n")  # the next line must not continue the half line of a crash
        if self.file.tell() == 0:
            self._append({"finseek_journal": 1, "job": dict(job)})

    def finish(self, shard: str, entries: list[Entry]) -> None:
        """Record a shard that is whole on the disk."""
        self._append({"shard": shard, "entries": [asdict(entry) for entry in entries]})

    def _append(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file, keep it."""
        self.file.close()


def read_journals(folder: Path, job: Mapping[str, Any]) -> dict[str, list[Entry]]:
    """The finished shards of a job that was begun in a folder, by all processes.

    Raises:
        InputError: a journal is of another job, damaged, or of an older finseek.
    """
    shards = {}
    for path in sorted(folder.glob(JOURNALS)):
        for raw in path.read_bytes().splitlines():
            try:
                line = json.loads(raw)
            except ValueError:
                continue  # cut off by a crash: its shard is done again
            if "job" in line and line["job"] != json.loads(json.dumps(job)):
                differ = sorted(key for key in job if json.loads(json.dumps(job[key])) != line["job"].get(key))
                raise InputError(
                    f"{folder}: was begun with another {', '.join(differ) or 'job'}; resume with the same source and "
                    "options, or choose an empty folder"
                )
            try:
                if "shard" in line:
                    shards[line["shard"]] = [_entry(entry) for entry in line["entries"]]
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(
                    f"{path}: damaged, or begun by an older finseek ({error}); delete {folder} and convert again"
                ) from None
    return shards
