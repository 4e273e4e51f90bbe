"""What every model that runs here has in common: tokens, batches, the action slot."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finseek.core.actions import ACTIONS
from finseek.core.artifacts import sha256_file, sha256_json
from finseek.core.errors import InputError
from finseek.evaluate.backends.base import Answer
from finseek.evaluate.options import EvaluateOptions
from finseek.samples import Encoder, Sample

Ids = list[int]
ACTION_TAG = "<action>"
SAMPLING = ("mode", "max_new_tokens", "temperature", "top_p", "dtype")


class LocalBackend(ABC):
    """A model in a folder, its tokenizer beside it; subclasses run it.

    Args:
        checkpoint: folder in the Hugging Face layout with tokenizer.json.
        options: mode, sampling, batch size, device, dtype.
        order: order of the elements in an answer; what stands before the action is generated first.
        seed: of the sampling at temperatures above zero.
        template: chat template, as in the prompt options.

    Raises:
        InputError: the folder holds no model, or one that does not know every token; no such device.
        ArtifactError: it holds no tokenizer.
    """

    def __init__(
        self,
        checkpoint: Path,
        options: EvaluateOptions,
        order: Sequence[str],
        seed: int = 0,
        template: str = "deepseek",
    ) -> None:
        self.options, self.order, self.seed = options, tuple(order), seed
        check_device(options.device)
        self.encoder = Encoder(checkpoint, template)
        self.stops = {*self.encoder.end_ids[:1], *self.load(checkpoint)}
        tokens, self.context = self.sizes()
        if tokens < self.encoder.vocab_size:
            raise InputError(
                f"checkpoint {checkpoint} knows {tokens} tokens, the tokenizer beside it {self.encoder.vocab_size}:"
                " give it its own tokenizer"
            )
        files = sorted(file for ending in ("safetensors", "json", "jinja") for file in checkpoint.glob(f"*.{ending}"))
        self._about = {
            "backend": options.backend,
            "files": {file.name: sha256_file(file) for file in files},
            "sampling": options.model_dump(mode="json", include=set(SAMPLING)),
            "order": list(order),
            "template": template,
        }
        self.identity = self._identity()

    def _identity(self) -> str:
        return sha256_json({**self._about, "seed": self.seed if self.options.temperature else None})

    def reseeded(self, seed: int) -> LocalBackend:
        """The same model, not loaded again, with another seed of its sampling."""
        other = copy(self)
        other.seed = seed
        other.identity = other._identity()
        return other

    @abstractmethod
    def load(self, checkpoint: Path) -> set[int]:
        """Load the model; return the ids at which its config ends a text."""

    @abstractmethod
    def sizes(self) -> tuple[int, int | None]:
        """Tokens that the loaded model knows, and the longest text that it was made for; None where it tells none."""

    @abstractmethod
    def generate(self, prompts: list[Ids], temperature: float, seed: int) -> list[Ids]:
        """What follows each prompt, the stop token and what comes after it included or not."""

    @abstractmethod
    def score(self, prompts: list[Ids], continuations: list[Ids]) -> list[NDArray[np.float64]]:
        """Summed log-probability of each continuation after each prompt."""

    @abstractmethod
    def log_p(self, pairs: Sequence[tuple[Ids, Ids]]) -> NDArray[np.float64]:
        """Summed log-probability of the second part of each pair after the first."""

    def plan(self, samples: Sequence[Sample]) -> list[list[int]]:
        """Batches of samples of like length, the longest first, so that memory is known after the first one.

        Raises:
            InputError: a prompt leaves no room for an action in the model's context.
        """
        lengths = [len(self.encoder.prompt_ids(sample)) for sample in samples]
        answer = max(map(len, self.encoder.action_ids().values()))
        if self.context and lengths and max(lengths) + answer > self.context:
            longest = samples[int(np.argmax(lengths))].metadata
            raise InputError(
                f"the prompt of {longest.get('ticker')} as of {longest.get('as_of_date')} has {max(lengths)} tokens,"
                f" the model's context is {self.context}, beyond which its answers mean nothing: shorten the prompt"
            )
        ordered = sorted(range(len(samples)), key=lambda i: (-lengths[i], i))
        size = self.options.batch_size
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    def answers(self, batches: Iterable[Sequence[Sample]]) -> Iterator[tuple[int, list[Answer]]]:
        """Answers of each batch, in order."""
        respond = self._score if self.options.mode == "score" else self._generate
        for number, batch in enumerate(batches):
            with cpu_threads(self.options.threads):
                answers = respond(batch)
            yield number, answers

    def _generate(self, batch: Sequence[Sample]) -> list[Answer]:
        return [Answer(text, tokens=n) for text, n in self._free_text(batch, self.options.temperature)]

    def _free_text(self, batch: Sequence[Sample], temperature: float) -> list[tuple[str, int]]:
        """Text and number of tokens that follow each prompt, up to the end of the sentence."""
        seed = zlib.crc32(batch[0].input.encode()) ^ self.seed
        texts = []
        for row in self.generate([self.encoder.prompt_ids(sample) for sample in batch], temperature, seed):
            length = next((i for i, token in enumerate(row) if token in self.stops), len(row))
            texts.append((self.encoder.decode(row[:length]), length))
        return texts

    def _score(self, batch: Sequence[Sample]) -> list[Answer]:
        """Five summed log-probabilities of each prompt, with the free text before the action where it comes later."""
        written = [(ACTION_TAG, 0)] * len(batch) if self.order[0] == "action" else self._free_text(batch, 0.0)
        answers = [Answer(text, tokens=n) for text, n in written]
        heads = {i: text.partition(ACTION_TAG)[0] for i, (text, _) in enumerate(written) if ACTION_TAG in text}
        prompts = [
            self.encoder.prompt_ids(batch[i]) + self.encoder.text_ids(head + ACTION_TAG) for i, head in heads.items()
        ]
        scores = self.score(prompts, list(self.encoder.action_ids().values())) if prompts else []
        for (i, head), log_p in zip(heads.items(), scores, strict=True):
            best = ACTIONS[int(log_p.argmax())]
            answers[i] = Answer(f"{head}{ACTION_TAG}{best}</action>", tuple(map(float, log_p)), written[i][1])
        return answers


def check_device(name: str) -> None:
    """Refuse a device that is not here.

    Raises:
        InputError: names the ones that are.
    """
    import torch

    kind, _, number = name.partition(":")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if int(number or 0) >= there.get(kind, 0):
        raise InputError(
            f"evaluate.device {name} is not on this machine, which has"
            f" {', '.join(f'{count} {each}' for each, count in there.items())}: set it to cpu, or evaluate elsewhere"
        )


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Run with so many threads of torch: sums, hence the last digits, depend on their number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def left_padded(prompts: Sequence[Ids]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens and attention mask (B, T) of prompts, padded on the left with 0."""
    T = max(map(len, prompts))
    tokens, mask = np.zeros((2, len(prompts), T), dtype=np.int64)
    for i, prompt in enumerate(prompts):
        tokens[i, T - len(prompt) :] = prompt
        mask[i, T - len(prompt) :] = 1
    return tokens, mask
