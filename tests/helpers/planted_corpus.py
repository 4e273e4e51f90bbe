"""A small corpus whose action follows from one word of the prompt, and jobs on it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from finseek.core.actions import ACTIONS
from finseek.samples import Sample, train_tokenizer, write_samples
from finseek.samples.prompts import tagged
from finseek.train import ModelInit, ParallelOptions, TrainJob, TrainOptions


def planted(seed: int, count: int, most_noise: int) -> list[Sample]:
    """Samples whose prompt names the place of the action, and some words of noise."""
    rng = random.Random(seed)
    samples = []
    for number in range(count):
        place = rng.randrange(5)
        noise = " ".join(f"noise={rng.randrange(8)}" for _ in range(rng.randrange(1, most_noise + 1)))
        output, span = tagged([("action", ACTIONS[place].value), ("reasoning", f"because {place}")])
        metadata = {"uid": f"{seed}-{number}", "action": ACTIONS[place].value, "action_span": span}
        samples.append(Sample(f"signal={place} {noise}", output, metadata))
    return samples


def write_corpus(folder: Path, training: int, validation: int, most_noise: int) -> None:
    """training.jsonl, validation.jsonl and tokenizer/."""
    samples = planted(1, training, most_noise)
    write_samples(folder / "training.jsonl", samples)
    write_samples(folder / "validation.jsonl", planted(2, validation, most_noise))
    train_tokenizer([text for sample in samples for text in (sample.input, sample.output)], 400, folder / "tokenizer")


def job_on(
    corpus: Path,
    output: Path,
    init: ModelInit,
    options: dict[str, Any],
    parallel: dict[str, Any] | None = None,
    seed: int = 1,
) -> TrainJob:
    """A job on the corpus."""
    return TrainJob(
        training=corpus / "training.jsonl",
        validation=corpus / "validation.jsonl",
        tokenizer=corpus / "tokenizer",
        init=init,
        output=output,
        options=TrainOptions(**options),
        parallel=ParallelOptions(**parallel or {}),
        seed=seed,
    )
