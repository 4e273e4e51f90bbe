"""Records as JSON lines, one a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from finseek.core.artifacts import write_lines
from finseek.core.errors import ArtifactError

R = TypeVar("R", bound=msgspec.Struct)


def write_records(path: Path, records: Iterable[msgspec.Struct]) -> int:
    """Write records, all or none; return their number."""
    return write_lines(path, map(msgspec.json.Encoder().encode, records))


def iterate_records(path: Path, kind: type[R], stage: str) -> Iterator[R]:
    """Read records one by one from a file that finseek wrote.

    Args:
        path: the file.
        kind: of every record.
        stage: which writes the file; errors name it.

    Raises:
        ArtifactError: the file is missing, or a line holds something else.
    """
    decode = msgspec.json.Decoder(kind).decode
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    what = f"{path}:{number} is no {kind.__name__.lower()} ({error})"
                    raise ArtifactError(f"{what}: run the {stage} stage") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}): run the {stage} stage") from error
