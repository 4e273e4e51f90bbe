"""A sample as the model will see it, cut where the role of its tokens changes."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

from finseek.samples.encode import Encoder
from finseek.samples.records import Sample


class Preview(NamedTuple):
    """What an encoder makes of one sample.

    Attributes:
        runs: role (0 prompt, 1 action, 2 rest of the answer) and text of each run of tokens of one role.
        tokens: how many there are.
        truncated: the end of the answer was cut off to fit.
    """

    runs: list[tuple[int, str]]
    tokens: int
    truncated: bool


def preview(sample: Sample, encoder: Encoder, max_length: int | None = None) -> Preview:
    """Runs of tokens as they decode, control characters escaped, so that a terminal obeys no text.

    Raises:
        InputError: the sample does not fit or has an empty mask.
    """
    ids, role, truncated = encoder.encode(sample, max_length, truncate=max_length is not None)
    runs = groupby(zip(role.tolist(), ids.tolist(), strict=True), key=lambda pair: pair[0])
    texts = [(kind, _shown(encoder.decode(token for _, token in run))) for kind, run in runs]
    return Preview(texts, len(ids), truncated)


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
