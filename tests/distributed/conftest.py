"""A small corpus whose action follows from one word of the prompt, and jobs on it in one process and in several."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finseek.core.actions import ACTIONS
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.samples import Encoder, Sample, train_tokenizer, write_samples
from finseek.samples.prompts import tagged
from finseek.train import ModelInit, ParallelOptions, TrainJob, TrainOptions

TINY = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "moe_intermediate_size": 16,
    "num_attention_heads": 2,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
}
QUICK = {
    "max_steps": 20,
    "global_batch_size": 16,
    "micro_batch_size": 4,
    "seq_length": 96,
    "learning_rate": 1e-3,
    "warmup_steps": 5,
    "checkpoint_every": 3,
    "val_check_interval": 10,
    "log_every_n_steps": 1,
    "threads": 1,
    "check": False,
}


def planted(seed: int, count: int) -> list[Sample]:
    rng = random.Random(seed)
    samples = []
    for number in range(count):
        place = rng.randrange(5)
        noise = " ".join(f"noise={rng.randrange(8)}" for _ in range(rng.randrange(1, 12)))
        output, span = tagged([("action", ACTIONS[place].value), ("reasoning", f"because {place}")])
        metadata = {"uid": f"{seed}-{number}", "action": ACTIONS[place].value, "action_span": span}
        samples.append(Sample(f"signal={place} {noise}", output, metadata))
    return samples


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with training.jsonl (90 samples), validation.jsonl (30), tokenizer/, and base/, a random checkpoint."""
    folder = tmp_path_factory.mktemp("corpus")
    training = planted(1, 90)
    write_samples(folder / "training.jsonl", training)
    write_samples(folder / "validation.jsonl", planted(2, 30))
    train_tokenizer([text for sample in training for text in (sample.input, sample.output)], 400, folder / "tokenizer")
    size = Encoder(folder / "tokenizer").vocab_size
    DeepSeekV3(DeepSeekConfig.preset("tiny", vocab_size=size, **TINY), seed=5).save_pretrained(folder / "base")
    return folder


@pytest.fixture
def make_job(corpus: Path, tmp_path: Path) -> Callable[..., TrainJob]:
    """Job on the corpus: ``make_job("out", {parallel options}, overrides={…}, option=…)``."""
    return _maker(corpus, tmp_path)


@pytest.fixture(scope="module")
def module_job(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainJob]:
    """The same with a folder for the whole module."""
    return _maker(corpus, tmp_path_factory.mktemp("jobs"))


def _maker(corpus: Path, folder: Path) -> Callable[..., TrainJob]:

    def make(
        output: str, parallel: dict[str, Any] | None = None, overrides: dict[str, Any] | None = None, **options: Any
    ) -> TrainJob:
        adapted = "lora" in options
        origin = ModelInit(path=corpus / "base") if adapted else ModelInit("tiny", None, TINY | (overrides or {}))
        return TrainJob(
            training=corpus / "training.jsonl",
            validation=corpus / "validation.jsonl",
            tokenizer=corpus / "tokenizer",
            init=origin,
            output=folder / output / "train",
            options=TrainOptions(**QUICK | options),
            parallel=ParallelOptions(**parallel or {}),
            seed=1,
        )

    return make
