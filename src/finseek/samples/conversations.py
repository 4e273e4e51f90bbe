"""Conversations as samples: the last answer is the output, the turns before it stand in the metadata."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from finseek.core.artifacts import write_lines
from finseek.core.errors import InputError
from finseek.samples.encode import Encoder
from finseek.samples.records import Sample

TOO_LONG = "prompt_too_long"


def sample_of(conversation: Any) -> Sample:
    """One sample of a conversation's ``messages``, user and assistant by turns."""
    *earlier, user, assistant = conversation["messages"]
    return Sample(user["content"], assistant["content"], {"earlier": earlier} if earlier else {})


def iterate_conversations(path: Path) -> Iterator[Sample]:
    """The samples of a file that :func:`finseek.samples.instruct_convert.convert_instructions` wrote as messages."""
    with path.open("rb") as lines:
        for line in lines:
            yield sample_of(orjson.loads(line))


def leave_out_long(samples: Path, encoder: Encoder, max_tokens: int) -> list[Sample]:
    """Take the conversations out of a file whose first answer begins behind ``max_tokens``; returns them."""
    left: list[Sample] = []

    def kept() -> Iterator[bytes]:
        with samples.open("rb") as lines:
            for line in lines:
                fields = orjson.loads(line)
                if len(line) < max_tokens:  # a token has a byte at least
                    yield line.rstrip(b"\n")
                    continue
                sample = Sample(**fields)
                try:
                    encoder.encode(sample, max_tokens, truncate=True)
                except InputError:
                    left.append(sample)
                else:
                    yield line.rstrip(b"\n")

    write_lines(samples, kept())
    return left
