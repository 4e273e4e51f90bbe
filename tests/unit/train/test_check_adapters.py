"""The pre-flight check on adapters and on models of transformers: sound jobs pass, injected faults are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from finseek.core.errors import InputError
from finseek.core.progress import silent
from finseek.model import DeepSeekV3
from finseek.model.lora import add_lora
from finseek.samples import Encoder, load_samples
from finseek.train import ModelInit, TrainJob, TrainOptions, load_engine
from finseek.train.check.job import CheckReport, check_job
from finseek.train.check.model import least_loss
from finseek.train.data import encode_samples
from finseek.train.engines.batches import TensorBatch, tensors
from finseek.train.engines.first import first_model

MakeJob = Callable[..., TrainJob]
UNBALANCED = {"balance_loss": 0.0, "router_bias_update_rate": 0.0}  # of which engine trl would say that it has none


def adapted_parts(job: TrainJob, targets: str) -> list:
    encoder = Encoder(job.tokenizer)
    samples = load_samples(job.training)
    model = first_model(job, encoder)
    add_lora(model, 4, 8, target_modules=targets)
    options = TrainOptions.model_validate_json(json.dumps(job.options.model_dump() | {"lora": {"rank": 4}}))
    return [model, samples, encode_samples(samples, encoder, 128), encoder, options, 40, 10]


def failed(report: CheckReport) -> tuple[str, str]:
    assert len(report.failed) == 1, report
    return report.failed[0].name, report.failed[0].detail


@pytest.mark.parametrize("targets", ["attention", "attention+experts", "all"])
def test_adapters_pass_and_are_not_touched(make_job: MakeJob, targets: str) -> None:
    parts = adapted_parts(make_job(seq_length=128), targets)
    model: DeepSeekV3 = parts[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = check_job(*parts)
    assert report.failed == ()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    details = {finding.name: finding.detail for finding in report.findings}
    assert "are frozen and stay" in details["gradients"]
    assert "all 8 routed experts can be reached" in details["experts"]


def test_adapter_on_nothing(make_job: MakeJob) -> None:
    parts = adapted_parts(make_job(seq_length=128), "attention")
    parts[0].requires_grad_(False)
    name, detail = failed(check_job(*parts))
    assert name == "gradients"
    assert "the adapter matched no module" in detail


def test_something_learns_beside_the_adapters(make_job: MakeJob) -> None:
    parts = adapted_parts(make_job(seq_length=128), "attention")
    parts[0].lm_head.requires_grad_(True)
    name, detail = failed(check_job(*parts))
    assert name == "gradients"
    assert "1 parameters are trained beside the adapters, the first is lm_head.weight" in detail


def test_frozen_parameters_of_a_whole_training(make_job: MakeJob) -> None:
    job = make_job(seq_length=128)
    parts = adapted_parts(job, "attention")
    parts[0], parts[4] = first_model(job, parts[3]), job.options
    parts[0].model.layers[1].mlp.experts.requires_grad_(False)
    name, detail = failed(check_job(*parts))
    assert name == "gradients"
    assert "2 parameters are frozen though train.lora is null, the first is model.layers.1.mlp.experts" in detail


def test_one_frozen_expert_of_a_stack(make_job: MakeJob) -> None:
    job = make_job(seq_length=128)
    parts = adapted_parts(job, "attention")
    parts[0], parts[4] = first_model(job, parts[3]), job.options
    frozen = torch.ones(8, 1, 1)
    frozen[3] = 0
    for weight in parts[0].model.layers[1].mlp.experts.parameters():
        weight.register_hook(lambda gradient: gradient * frozen)
    name, detail = failed(check_job(*parts))
    assert name == "experts"
    assert "of experts [3] gets no gradient: frozen or dead" in detail


def test_a_model_that_cannot_learn_is_found_by_heart(make_job: MakeJob) -> None:
    """Gradients flow and weights move, but against the loss: nothing but the overfit sees it."""
    job = make_job(seq_length=128)
    parts = adapted_parts(job, "attention")
    parts[0], parts[4] = first_model(job, parts[3]), job.options
    for weight in parts[0].parameters():
        weight.register_hook(torch.neg)
    name, _ = failed(check_job(*parts))
    assert name == "overfit"


def test_least_loss_is_what_memory_leaves() -> None:
    ids = np.array([[0, 1, 2, 3], [0, 1, 2, 4], [0, 5, 2, 6]])
    weight = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 0, 2]], dtype=np.float32)
    batch = tensors_of(ids, weight)
    # Rows 1 and 2 share what stands before their last token: ln 2 each; row 3 stands alone, but for its second token,
    # which alone has a weight there.
    assert least_loss(batch) == pytest.approx(2 * np.log(2) / 7)


def tensors_of(ids: np.ndarray, weight: np.ndarray) -> TensorBatch:
    from finseek.train.data import Batch

    return tensors(Batch(ids, np.ones_like(ids, dtype=bool), weight, np.zeros_like(ids, dtype=bool)))


class TestOfTransformers:
    """The same through engine trl."""

    @pytest.fixture
    def trl_run(self, make_job: MakeJob, tmp_path: Path):
        from finseek.train.engines.settings import process_settings
        from finseek.train.engines.trl.engine import TrlRun
        from finseek.train.engines.trl.trainer import quiet

        def start(**options):
            job = make_job(engine="trl", seq_length=128, check=False, **UNBALANCED, **options)
            if job.options.lora:
                first_model(job, Encoder(job.tokenizer)).save_pretrained(tmp_path / "base")
                job = replace(job, init=ModelInit(path=tmp_path / "base"))
            with process_settings(1, 0), quiet():
                return TrlRun(job, silent)

        return start

    @pytest.mark.parametrize("lora", [None, {"rank": 4, "target_modules": "attention+experts", "dropout": 0.0}])
    def test_a_sound_job_passes(self, trl_run, lora) -> None:
        run = trl_run(**({"lora": lora} if lora else {}))
        before = {name: value.clone() for name, value in run.trainer.model.state_dict().items()}
        report = run.check()
        assert report.failed == ()
        assert all(torch.equal(value, before[name]) for name, value in run.trainer.model.state_dict().items())
        assert report.summary.endswith("10 steps an epoch, 40 in all")
        details = {finding.name: finding.detail for finding in report.findings}
        assert "all 8 routed experts can be reached" in details["experts"]
        assert "learns '<action>" in details["loss mask"]

    def test_shifted_labels(self, trl_run) -> None:
        run = trl_run()
        theirs = run.trainer.token_loss
        run.trainer.token_loss = lambda model, batch: theirs(
            model, batch._replace(input_ids=batch.input_ids.roll(1, dims=1))
        )
        assert failed(run.check())[0] == "labels"

    def test_a_frozen_expert(self, trl_run) -> None:
        run = trl_run()
        with torch.no_grad():
            experts = dict(run.trainer.model.named_modules())["model.layers.1.mlp.experts"]
            experts.gate_up_proj[2] = 0
            experts.down_proj[2] = 0
        name, detail = failed(run.check())
        assert name == "experts"
        assert "[2] gets no gradient" in detail

    def test_an_exploding_rate_stops_the_run_in_one_line(self, make_job: MakeJob) -> None:
        job = make_job(engine="trl", learning_rate=50.0, gradient_clip_val=0.0, check=True, **UNBALANCED)
        with pytest.raises(InputError, match=r"check overfit: .* at train.learning_rate 50: it explodes"):
            load_engine("trl").run(job)
        assert not (job.output / "checkpoint").exists()
