"""A sample as the model will see it, with what it learns from in colour."""

from __future__ import annotations

from itertools import groupby

from finseek.samples.encode import Encoder
from finseek.samples.records import Sample
from finseek.samples.templates import ACTION, ANSWER, PROMPT

# ANSI: the prompt dim, the action bold yellow, the rest of the answer green.
COLOURS = {PROMPT: "\x1b[2m", ACTION: "\x1b[1;33m", ANSWER: "\x1b[32m"}
RESET = "\x1b[0m"


def preview(sample: Sample, encoder: Encoder, max_length: int | None = None) -> list[tuple[int, str]]:
    """Runs of the same role, each with its text as its tokens decode.

    Raises:
        InputError: the sample does not fit or has an empty mask.
    """
    ids, role, _ = encoder.encode(sample, max_length, truncate=max_length is not None)
    runs = groupby(zip(role.tolist(), ids.tolist(), strict=True), key=lambda pair: pair[0])
    return [(kind, encoder.decode(token for _, token in run)) for kind, run in runs]


def coloured(runs: list[tuple[int, str]]) -> str:
    """The runs for a terminal; control characters of the texts are shown and not obeyed."""
    return "".join(f"{COLOURS[kind]}{_shown(text)}{RESET}" for kind, text in runs)


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\n" else f"\\x{ord(char):02x}" for char in text)
