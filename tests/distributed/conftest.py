"""Jobs on the planted corpus, in one process and in several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planted_corpus import job_on, write_corpus

from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.samples import Encoder
from finseek.train import ModelInit, TrainJob

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


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with training.jsonl (90 samples), validation.jsonl (30), tokenizer/, and base/, a random checkpoint."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, 90, 30, most_noise=11)
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
        return job_on(corpus, folder / output / "train", origin, QUICK | options, parallel)

    return make
