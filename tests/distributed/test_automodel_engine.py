"""NeMo AutoModel on the CPU: in every layout the losses of engine lightning, from whatever weights it starts."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from finseek.checkpoint import QuantizeOptions, dequantize_checkpoint, export_hf, quantize_checkpoint
from finseek.core.errors import ConfigError, Note, Stopped
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.model.loss import IGNORED
from finseek.samples import Encoder
from finseek.train import ModelInit, ParallelOptions, TrainJob, load_engine
from finseek.train.engines.automodel.data import EMPTY, collate, training_rows, validation_rows, write_arrays
from finseek.train.engines.automodel.recipe import Machine, Sizes
from finseek.train.engines.automodel.rules import check_job_for_automodel
from finseek.train.engines.prepared import prepare

EQUAL = {"mtp_loss": 0.0, "balance_loss": 0.0, "router_bias_update_rate": 0.0, "keep": "last", "engine": "automodel"}
TWO = {"devices_per_node": 2}


def lines(job: TrainJob) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job.output / "train_log.jsonl").read_text().splitlines()]


def reference(job: TrainJob) -> list[dict[str, Any]]:
    """The log of engine lightning in one process."""
    alone = replace(job, output=job.output.with_name("lightning"), parallel=ParallelOptions())
    load_engine("lightning").run(alone)
    return lines(alone)


def assert_equal_curves(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], tolerance: float = 2e-5, of_gradients: float = 1e-4
) -> None:
    assert [line["step"] for line in ours] == list(range(1, len(theirs) + 1))
    assert set(ours[0]) == set(theirs[0])
    for name in ("loss", "grad_norm", "learning_rate", "validation_loss"):
        for one, other in zip(ours, theirs, strict=True):
            close = of_gradients if name == "grad_norm" else tolerance
            expected = None if other[name] is None else pytest.approx(other[name], rel=close)
            assert one[name] == expected, (name, one["step"])
    assert [line["tokens"] for line in ours] == [line["tokens"] for line in theirs]


def test_layers_on_two_processes_stopped_and_resumed(make_job: Callable[..., TrainJob]) -> None:
    job = make_job("run", TWO | {"pipeline_model_parallel_size": 2}, **EQUAL | {"router_bias_update_rate": 0.01})

    def stop() -> None:
        log = job.output / "train_log.jsonl"
        deadline = time.monotonic() + 240
        while not (log.is_file() and log.read_bytes().count(b"\n") >= 4) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Stopped, match=r"stopped by SIGUSR1 after step \d+ of 20; its state is saved"):
        load_engine("automodel").run(job)
    thread.join()
    stopped = len(lines(job))
    assert 4 <= stopped < 20
    result = load_engine("automodel").run(job)
    assert_equal_curves(lines(job), reference(job))
    assert (result.steps, result.tokens) == (20, lines(job)[-1]["tokens"])
    assert result.best_validation_loss == min(line["validation_loss"] or 9e9 for line in lines(job))
    assert sorted(path.name for path in job.output.iterdir()) == ["checkpoint", "train_log.jsonl"]
    ours = DeepSeekV3.from_pretrained(result.checkpoint).state_dict()
    theirs = DeepSeekV3.from_pretrained(job.output.with_name("lightning") / "checkpoint").state_dict()
    assert ours.keys() == theirs.keys()
    biases = [name for name in ours if name.endswith("e_score_correction_bias")]
    assert biases
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=2e-4, rtol=1e-3, msg=name)
    assert all(ours[name].abs().max() >= 0.01 for name in biases)


def test_experts_on_two_processes_from_fp8_weights(
    make_job: Callable[..., TrainJob], corpus: Path, tmp_path: Path
) -> None:
    sizes = {"num_hidden_layers": 3, "num_nextn_predict_layers": 1, "hidden_size": 128, "intermediate_size": 128}
    shape = DeepSeekConfig.preset("tiny", vocab_size=Encoder(corpus / "tokenizer").vocab_size, **sizes)
    DeepSeekV3(shape, seed=2).to(torch.bfloat16).save_pretrained(tmp_path / "bf16")
    quantize_checkpoint(tmp_path / "bf16", tmp_path / "fp8", QuantizeOptions())
    dequantize_checkpoint(tmp_path / "fp8", tmp_path / "exact")
    made = make_job("run", TWO | {"expert_model_parallel_size": 2}, **EQUAL | {"mtp_loss": 0.3, "max_steps": 6})
    job = replace(made, init=ModelInit(path=tmp_path / "fp8"))
    with pytest.warns(Note, match="does not train the multi-token-prediction layers"):
        result = load_engine("automodel").run(job)
    exact = replace(job, init=ModelInit(path=tmp_path / "exact"))
    without = replace(exact, options=exact.options.model_copy(update={"mtp_loss": 0.0}))
    assert_equal_curves(lines(job), reference(without), 1e-4, 2e-3)  # ours were rounded to bfloat16 on the way
    pipeline = replace(job, parallel=ParallelOptions(devices_per_node=2, pipeline_model_parallel_size=2))
    with pytest.raises(ConfigError, match=r"is FP8, which AutoModel 0\.7 cannot load into a pipeline"):
        load_engine("automodel").run(pipeline)
    trained = DeepSeekV3.from_pretrained(result.checkpoint, num_nextn_predict_layers=0)
    assert "quantization_config" not in json.loads((result.checkpoint / "config.json").read_bytes())
    before = DeepSeekV3.from_pretrained(tmp_path / "exact", torch.float32).lm_head.weight
    assert 0 < (trained.lm_head.weight.float() - before).abs().max() < 0.02


@pytest.mark.parametrize("overrides", [{}, {"q_lora_rank": None, "first_k_dense_replace": 0}])
def test_heads_and_experts_on_two_processes(make_job: Callable[..., TrainJob], overrides: dict[str, Any]) -> None:
    both = {"tensor_model_parallel_size": 2, "expert_model_parallel_size": 2}
    options = EQUAL | {"router_bias_update_rate": 0.01, "max_steps": 6}
    job = make_job("run", TWO | both, overrides, **options)
    result = load_engine("automodel").run(job)
    assert_equal_curves(lines(job), reference(job))
    ours = DeepSeekV3.from_pretrained(result.checkpoint).state_dict()
    theirs = DeepSeekV3.from_pretrained(job.output.with_name("lightning") / "checkpoint").state_dict()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=2e-4, rtol=1e-3, msg=name)


def test_adapters_on_shared_heads_are_written_whole(
    make_job: Callable[..., TrainJob], corpus: Path, tmp_path: Path
) -> None:
    lora = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all"}
    options = EQUAL | {"max_steps": 8, "learning_rate": 1e-2}
    job = make_job("run", TWO | {"tensor_model_parallel_size": 2}, **options | {"lora": lora})
    result = load_engine("automodel").run(job)
    curve = lines(job)
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.02
    export_hf(result.checkpoint, tmp_path / "merged", base=corpus / "base")
    # A step too small to move anything: its validation loss is that of the merged weights.
    still = replace(make_job("still", **EQUAL | {"max_steps": 1, "learning_rate": 1e-12, "engine": "lightning"}),
                    init=ModelInit(path=tmp_path / "merged"))  # fmt: skip
    load_engine("lightning").run(still)
    assert lines(still)[-1]["validation_loss"] == pytest.approx(curve[-1]["validation_loss"], rel=2e-5)


@pytest.mark.parametrize(
    ("parallel", "options", "says"),
    [
        ({"devices_per_node": 4, "tensor_model_parallel_size": 4}, {}, "size 4 must divide num_attention_heads 2"),
        (
            {"devices_per_node": 4, "tensor_model_parallel_size": 2, "context_parallel_size": 2},
            {},
            "does not know finseek's shares of heads",
        ),
        ({"context_parallel_size": 2}, {}, "Transformer Engine's attention, which is not installed here"),
        ({"sharding": "none"}, {}, r"always shards weights over its 2 replicas \(FSDP2\): set it to fsdp"),
        ({}, {"packed_sequence_size": 256}, "lets packed samples see each other"),
        ({}, {"loss_weights": {"action": 1.0, "rest": 0.5}}, "weighs all tokens alike"),
        ({}, {"average_decay": 0.9}, "keeps no average of weights"),
        ({"pipeline_model_parallel_size": 2}, {"micro_batch_size": 16}, "fewer than the 2 stages"),
        ({}, {"lora": {"rank": 4, "rslora": True}}, "rslora and loftq are not known"),
    ],
)
def test_what_automodel_cannot_do_is_refused_with_the_reason(
    make_job: Callable[..., TrainJob], parallel: dict[str, int], options: dict[str, Any], says: str
) -> None:
    job = make_job("run", TWO | parallel, **{"engine": "automodel"} | options)
    with pytest.raises(ConfigError, match=says) as refusal:
        check_job_for_automodel(job, Machine())
    assert "\n" not in str(refusal.value)


def test_steps_are_dealt_to_replicas_as_in_every_engine(make_job: Callable[..., TrainJob], tmp_path: Path) -> None:
    job = make_job("run", {"devices_per_node": 4}, global_batch_size=14, micro_batch_size=2)
    prepared, sizes = prepare(job), Sizes.of(job)
    assert (sizes.replicas, sizes.passes, sizes.slots) == (4, 2, 16)
    write_arrays(tmp_path / "training", prepared.training, answer_only=True)
    rows = training_rows(str(tmp_path / "training"), job.seed, 14, 9, sizes.slots)
    steps = dict(prepared.plan.steps(0, 9))
    weights = prepared.training.token_weights(job.options.loss_weights, True)
    for step, wanted in steps.items():
        dealt = [place for place in rows.order[step * 16 : step * 16 + 16] if place != EMPTY]
        assert dealt == wanted.tolist()
        batch = collate([rows[step * 16 + place] for place in range(len(wanted))], 0)
        ours = prepared.training.collate(wanted, weights, 0)
        assert torch.equal(batch["input_ids"], torch.from_numpy(ours.input_ids))
        assert torch.equal(batch["padding_mask"], torch.from_numpy(~ours.attention_mask))
        assert torch.equal(batch["labels"][:, :-1] != IGNORED, torch.from_numpy(ours.weight[:, 1:] > 0))
        assert (batch["labels"][:, -1] == IGNORED).all()
    assert len(validation_rows(str(tmp_path / "training"), 16)) == 96  # of 90 samples


def test_backends_follow_the_machine() -> None:
    alone, heads = ParallelOptions(), ParallelOptions(devices_per_node=2, tensor_model_parallel_size=2)
    assert Machine().backend(alone)["attn"] == "sdpa"
    machine = Machine(cuda=True, transformer_engine=True, deep_ep=True)
    assert machine.backend(heads)["attn"] == "sdpa"
    best = machine.backend(alone)
    assert (best["attn"], best["linear"], best["experts"], best["dispatcher"]) == ("te", "te", "torch_mm", "deepep")
    assert Machine.here() == Machine(cuda=torch.cuda.is_available())
