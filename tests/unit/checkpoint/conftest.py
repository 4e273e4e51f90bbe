"""A tiny random DeepSeek-V3 with MTP, plain and in block FP8, made once."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from finseek.checkpoint import QuantizeOptions, StreamOptions, quantize_checkpoint

SMALL = {"num_hidden_layers": 3, "vocab_size": 512, "n_routed_experts": 8, "n_group": 4, "topk_group": 2}


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BF16, one MTP layer, with files that stand for tokenizer and code."""
    import torch

    from finseek.model import DeepSeekConfig, DeepSeekV3

    folder = tmp_path_factory.mktemp("plain") / "checkpoint"
    config = DeepSeekConfig.preset("tiny", num_nextn_predict_layers=1, **SMALL)
    model = DeepSeekV3(config, seed=3).to(torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    for router in model.routers().values():
        router.e_score_correction_bias.copy_(torch.randn(8, generator=generator) * 0.1)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "modeling_deepseek.py").write_text("# code\n")
    return folder


@pytest.fixture(scope="session")
def quantized(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in FP8, blocks of 32 x 48 (ragged everywhere), several shards, scales in them."""
    folder = tmp_path_factory.mktemp("quantized") / "checkpoint"
    quantize_checkpoint(plain, folder, QuantizeOptions(block=(32, 48), stream=StreamOptions(shard_bytes=300_000)))
    (folder / "finseek_ledger.jsonl").unlink()
    return folder


@pytest.fixture
def copy(quantized: Path, tmp_path: Path) -> Path:
    """A copy of the FP8 checkpoint to be damaged."""
    return Path(shutil.copytree(quantized, tmp_path / "source"))


def options_with(options: object, **stream: object) -> object:
    """Options with some of their stream options replaced."""
    return dataclasses.replace(options, stream=dataclasses.replace(options.stream, **stream))  # type: ignore[attr-defined, type-var]
