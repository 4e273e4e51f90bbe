"""One config, three values of train.engine: the same losses, and each result evaluated by the same stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.pipeline import load_config, run
from finseek.samples import Encoder

SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32, "moe_intermediate_size": 16,
    "n_routed_experts": 4, "num_attention_heads": 2, "initializer_range": 0.1,
}  # fmt: skip


def test_three_engines_agree(study: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    made = run(load_config(study, ["run.name=base"]), last="samples")
    (made.paths.samples / "tokenizer").rename(base)
    tokens = {"vocab_size": Encoder(base).vocab_size, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    DeepSeekV3(DeepSeekConfig.preset("tiny", **tokens, **SHAPE), seed=4).save_pretrained(base)

    common = [
        "model.preset=null", "model.overrides={}", f"model.path={base}",
        "train.max_steps=20",
        "train.log_every_n_steps=1", "train.val_check_interval=20", "train.checkpoint_every=20", "train.keep=last",
        "train.learning_rate=0.003", "train.balance_loss=0", "train.mtp_loss=0", "train.router_bias_update_rate=0",
        "train.micro_batch_size=4", "evaluate.baselines=[majority]",
    ]  # fmt: skip
    logs, metrics = {}, {}
    for engine in ("lightning", "trl", "automodel"):
        result = run(load_config(study, [*common, f"run.name={engine}", f"train.engine={engine}"]), last="evaluate")
        log = (result.paths.train / "train_log.jsonl").read_text().splitlines()
        logs[engine] = [json.loads(line) for line in log]
        metrics[engine] = json.loads((result.paths.evaluate / "metrics.json").read_text())
    ours = logs["lightning"]
    assert len(ours) == 20
    assert ours[-1]["loss"] < 0.7 * ours[0]["loss"]
    for engine in ("trl", "automodel"):
        theirs = logs[engine]
        assert [line["step"] for line in theirs] == [line["step"] for line in ours]
        assert theirs[0]["loss"] == pytest.approx(ours[0]["loss"], abs=1e-4), engine
        assert theirs[-1]["loss"] == pytest.approx(ours[-1]["loss"], rel=1e-2), engine
        assert theirs[-1]["validation_loss"] == pytest.approx(ours[-1]["validation_loss"], rel=1e-2), engine
        assert metrics[engine]["rows"] == metrics["lightning"]["rows"]
        accuracy = [metrics[each]["classification"]["all"]["accuracy"]["value"] for each in ("lightning", engine)]
        assert accuracy[1] == pytest.approx(accuracy[0], abs=0.05), engine
