"""No state of another base is taken up, and weights that no longer give a number are never called a result."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from finseek.core.errors import ConfigError, FinseekError
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.train import ModelInit, load_engine
from finseek.train.engines.prepared import prepare

TINY = {"num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 2}


def test_a_killed_job_does_not_go_on_from_another_base(make_job, tmp_path):
    engine, bases = load_engine("lightning"), []
    for seed in (1, 2):
        bases.append(engine.run(make_job(f"base-{seed}", seed=seed, max_steps=1)).checkpoint)
    path = tmp_path / "base"
    job = replace(make_job("out", max_steps=4, checkpoint_every=1), init=ModelInit(path=path))

    def stop(label: str, done: float, total: float | None, unit: str) -> None:
        if label == "train" and done == 3:
            raise KeyboardInterrupt

    shutil.copytree(bases[0], path)
    with pytest.raises(KeyboardInterrupt):
        engine.run(job, stop)
    shutil.rmtree(path)
    shutil.copytree(bases[1], path)
    went_on, fresh = engine.run(job), engine.run(replace(job, output=tmp_path / "fresh"))
    ours, theirs = (one.checkpoint.joinpath("model.safetensors").read_bytes() for one in (went_on, fresh))
    assert ours == theirs


@pytest.mark.parametrize("engine", ["lightning", "trl"])
def test_weights_that_explode_in_the_last_step_are_no_result(make_job, engine):
    untrl = {"router_bias_update_rate": 0, "balance_loss": 0}
    job = make_job(engine=engine, max_steps=1, learning_rate=1e20, warmup_steps=0, **untrl)
    with pytest.raises(
        FinseekError, match=r"diverged: the validation loss of step 1 is nan.* lower train.learning_rate"
    ):
        load_engine(engine).run(job)
    assert not (job.output / "checkpoint").exists()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"vocab_size": 50}, r"knows 50 tokens, the tokenizer \d+: use the checkpoint's own tokenizer"),
        ({"vocab_size": 400, "max_position_embeddings": 32}, "exceeds the model's max_position_embeddings 32"),
    ],
)
def test_a_base_that_does_not_fit_the_samples_is_refused_for_every_engine(make_job, tmp_path, fields, says):
    DeepSeekV3(DeepSeekConfig.preset("tiny", **TINY, **fields)).save_pretrained(tmp_path / "base")
    with pytest.raises(ConfigError, match=says):
        prepare(replace(make_job(), init=ModelInit(path=tmp_path / "base")))  # what automodel and megatron call
    with pytest.raises(ConfigError, match=says):
        load_engine("lightning").run(replace(make_job(), init=ModelInit(path=tmp_path / "base")))


def test_an_architecture_without_every_token_is_refused(make_job):
    with pytest.raises(ConfigError, match=r"model\.overrides\.vocab_size knows 50 tokens"):
        load_engine("lightning").run(replace(make_job(), init=ModelInit("tiny", None, TINY | {"vocab_size": 50})))


def test_an_adapter_names_its_base_wherever_it_is_asked_from(make_job, tmp_path, monkeypatch):
    base = load_engine("lightning").run(make_job("first", max_steps=1)).checkpoint
    monkeypatch.chdir(base.parent)
    job = replace(make_job("adapter", max_steps=1, lora={"rank": 2}), init=ModelInit(path=Path(base.name)))
    checkpoint = load_engine("lightning").run(job).checkpoint
    monkeypatch.chdir(tmp_path)
    named = json.loads((checkpoint / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(named).samefile(base)
