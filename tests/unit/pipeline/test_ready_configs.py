"""The configs that are shipped for one GPU hold together and say what they are for."""

from __future__ import annotations

from pathlib import Path

from finseek.pipeline import load_config

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def test_instruct_qlora_is_what_it_is_named_for() -> None:
    config = load_config(CONFIGS / "instruct-qlora.yaml").config
    train, lora, instruct = config.train, config.train.lora, config.instruct
    assert lora is not None
    assert instruct is not None
    assert (train.engine, train.load_in_4bit, train.gradient_checkpointing) == ("trl", True, True)
    assert (train.seq_length, config.run.seed) == (2048, 42)
    assert (lora.rank, lora.alpha, lora.dropout, lora.bias) == (4, 16, 0, "none")
    assert (instruct.conversation_extension, instruct.output_column) == (3, "assistant")
    assert instruct.merged_prompt == "[[{system}\n]]{user}"
    assert config.theses.source is None


def test_theses_lora_is_what_it_is_named_for() -> None:
    config = load_config(CONFIGS / "theses-lora.yaml").config
    assert (config.train.engine, config.parallel.world_size) == ("trl", 1)
    assert config.train.lora is not None
    assert config.model is not None
    assert config.tokenizer == config.model.path
    assert config.split is not None
