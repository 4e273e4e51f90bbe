"""Short jobs on the planted corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planted_corpus import job_on, write_corpus

from finseek.train import ModelInit, TrainJob

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


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with training.jsonl (160 samples), validation.jsonl (40) and tokenizer/."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, 160, 40, most_noise=5)
    return folder


@pytest.fixture
def make_job(corpus: Path, tmp_path: Path) -> Callable[..., TrainJob]:
    """Job on the corpus: ``make_job("out", seed=…, option=…)``."""

    def make(output: str = "train", seed: int = 1, **options: Any) -> TrainJob:
        return job_on(corpus, tmp_path / output, ModelInit("tiny", overrides=TINY), QUICK | options, seed=seed)

    return make
