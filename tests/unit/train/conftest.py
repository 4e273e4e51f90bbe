"""A small corpus whose action follows from one word of the prompt, and jobs on it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finseek.core.actions import ACTIONS
from finseek.samples import Sample, train_tokenizer, write_samples
from finseek.samples.prompts import tagged
from finseek.train import ModelInit, ParallelOptions, TrainJob, TrainOptions

TINY = {"num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 2}
QUICK = {
    "epochs": 4,
    "global_batch_size": 16,
    "micro_batch_size": 8,
    "seq_length": 128,
    "learning_rate": 5e-3,
    "warmup_steps": 5,
    "checkpoint_every": 7,
    "log_every_n_steps": 5,
    "threads": 1,
    "check": False,
}


def planted(seed: int, count: int) -> list[Sample]:
    rng = random.Random(seed)
    samples = []
    for number in range(count):
        place = rng.randrange(5)
        noise = " ".join(f"noise={rng.randrange(8)}" for _ in range(rng.randrange(1, 6)))
        output, span = tagged([("action", ACTIONS[place].value), ("reasoning", f"because {place}")])
        metadata = {"uid": f"{seed}-{number}", "action": ACTIONS[place].value, "action_span": span}
        samples.append(Sample(f"signal={place} {noise}", output, metadata))
    return samples


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with training.jsonl (160 samples), validation.jsonl (40) and tokenizer/."""
    folder = tmp_path_factory.mktemp("corpus")
    training = planted(1, 160)
    write_samples(folder / "training.jsonl", training)
    write_samples(folder / "validation.jsonl", planted(2, 40))
    train_tokenizer([text for sample in training for text in (sample.input, sample.output)], 400, folder / "tokenizer")
    return folder


@pytest.fixture
def make_job(corpus: Path, tmp_path: Path) -> Callable[..., TrainJob]:
    """Job on the corpus: ``make_job("out", seed=…, option=…)``."""

    def make(output: str = "train", seed: int = 1, **options: Any) -> TrainJob:
        return TrainJob(
            training=corpus / "training.jsonl",
            validation=corpus / "validation.jsonl",
            tokenizer=corpus / "tokenizer",
            init=ModelInit(preset="tiny", overrides=TINY),
            output=tmp_path / output,
            options=TrainOptions(**QUICK | options),
            parallel=ParallelOptions(),
            seed=seed,
        )

    return make
