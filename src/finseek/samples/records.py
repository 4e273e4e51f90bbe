"""The record of a sample and its JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from finseek.core.artifacts import atomic_file
from finseek.core.errors import ArtifactError

BUFFER = 1 << 20  # a sample is longer than a third of Python's own buffer: one system call for 400, not for 3


class Sample(msgspec.Struct, frozen=True, gc=False):
    """What the user says and what the assistant answers.

    Attributes:
        input: the user's message.
        output: the assistant's answer.
        metadata: of a thesis uid, ticker, as_of_date (ISO), action, split, and ``action_span``: where in ``output``
            the action and its closing tag lie, as [start, end) in characters; None where the answer is custom.
            Of a conversation ``earlier``: the turns before, each with role and content.
    """

    input: str
    output: str
    metadata: dict[str, Any]


def write_samples(path: Path, samples: Iterable[Sample]) -> int:
    """Write samples as JSON lines, whole or not at all; return their number."""
    encode = msgspec.json.Encoder().encode
    count = 0
    with atomic_file(path) as partial, partial.open("wb", BUFFER) as lines:
        for sample in samples:
            lines.write(encode(sample) + b"\n")
            count += 1
    return count


def iterate_samples(path: Path) -> Iterator[Sample]:
    """Read samples one by one.

    Raises:
        ArtifactError: the file is missing or a line is no sample.
    """
    decode = msgspec.json.Decoder(Sample).decode
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise ArtifactError(f"{path}:{number} is no sample ({error}): run the samples stage") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}): run the samples stage") from error


def load_samples(path: Path) -> list[Sample]:
    """All samples of a file."""
    return list(iterate_samples(path))
