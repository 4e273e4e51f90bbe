"""What a back end is to the rest: something that answers batches of samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from finseek.samples import Sample


class Answer(msgspec.Struct, frozen=True):
    """What a model said to one prompt.

    Attributes:
        text: the answer; in score mode with the action that scored best.
        log_p: in score mode the summed log-probability of each complete action string and its closing tag, in
            the order of ACTIONS; None where the free text before the action never reached the action's tag.
        tokens: generated tokens, where known.
        prompt_tokens: tokens of the prompt, where a server counts them.
        action_log_p: log-probability of the action that was written and its closing tag, given the text before it,
            where a server tells it.
    """

    text: str
    log_p: tuple[float, ...] | None = None
    tokens: int | None = None
    prompt_tokens: int | None = None
    action_log_p: float | None = None


class Backend(Protocol):
    """Answers prompts; made for one mode and one sampling."""

    identity: str
    """Hash of all that an answer depends on besides the prompt: weights, tokenizer, mode, sampling."""

    def plan(self, samples: Sequence[Sample]) -> list[list[int]]:
        """Positions of the samples, in batches; the same samples always give the same batches."""

    def answers(self, batches: Iterable[Sequence[Sample]]) -> Iterator[tuple[int, list[Answer]]]:
        """Number and answers of each batch, in any order, as they arrive."""

    def reseeded(self, seed: int) -> Backend:
        """The same model with another seed of its sampling."""
