"""The record of a sample and its JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from finseek.core.records import iterate_records, write_records


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
    return write_records(path, samples)


def iterate_samples(path: Path) -> Iterator[Sample]:
    """Read samples one by one.

    Raises:
        ArtifactError: the file is missing or a line is no sample.
    """
    return iterate_records(path, Sample, "samples")


def load_samples(path: Path) -> list[Sample]:
    """All samples of a file."""
    return list(iterate_samples(path))
