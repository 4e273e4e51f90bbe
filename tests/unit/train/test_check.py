"""Each fault that the pre-flight check knows, injected, is found and named; a sound job passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from finseek.core.errors import InputError
from finseek.model import DeepSeekV3
from finseek.samples import Encoder, load_samples
from finseek.train.check.job import CheckReport, check_job
from finseek.train.data import encode_samples
from finseek.train.engines.first import first_model


@pytest.fixture
def parts(make_job):
    job = make_job(seq_length=128)
    encoder = Encoder(job.tokenizer)
    samples = load_samples(job.training)
    return [
        first_model(job, encoder),
        samples,
        encode_samples(samples, encoder, 128),
        encoder,
        job.options,
        40,
        10,
    ]


def failure(parts: list) -> tuple[str, str]:
    report = check_job(*parts)
    assert len(report.failed) == 1, report
    return report.failed[0].name, report.failed[0].detail


def test_a_sound_job_passes_and_is_not_touched(parts):
    model: DeepSeekV3 = parts[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    report = check_job(*parts)
    assert report.failed == ()
    names = [finding.name for finding in report.findings]
    assert names == "loss mask,action tokens,special tokens,volume,labels,gradients,experts,overfit".split(",")
    details = {finding.name: finding.detail for finding in report.findings}
    assert "0.0% of samples cut" in details["volume"]
    assert "10 steps an epoch, 40 in all" in details["volume"]
    assert "all 8 routed experts" in details["experts"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(not router.load.any() for router in model.routers().values())
    report.raise_if_failed()


def test_empty_mask(parts):
    tokens = parts[2]
    roles = tokens.roles.copy()
    roles[tokens.starts[3] : tokens.starts[4]] = 0
    parts[2] = replace(tokens, roles=roles)
    name, detail = failure(parts)
    assert name == "loss mask"
    assert "1 of 160 samples have an empty loss mask, the first is sample 4" in detail
    with pytest.raises(InputError, match="empty loss mask"):
        CheckReport(check_job(*parts).findings).raise_if_failed()


def test_mask_shifted_against_the_action(parts):
    parts[2] = replace(parts[2], roles=np.roll(parts[2].roles, 1))
    name, detail = failure(parts)
    assert name == "action tokens"
    assert "shifted" in detail


def test_labels_shifted_in_the_model(parts):
    parts[0].register_forward_pre_hook(_shift_labels, with_kwargs=True)
    name, detail = failure(parts)
    assert name == "labels"
    assert "shifted" in detail


def _shift_labels(model, args, kwargs):
    ids, mask, *labels = args
    return (ids, mask, *(torch.roll(each, 1, dims=1) for each in labels)), kwargs


def test_special_token_twice(parts):
    tokens = parts[2]
    doubled = tokens.tokens.copy()
    doubled[tokens.starts[2] + 2] = 0
    parts[2] = replace(tokens, tokens=doubled)
    name, detail = failure(parts)
    assert name == "special tokens"
    assert "sample 3 has 2 times the token '<｜begin▁of▁sentence｜>'" in detail


def test_padding_equal_to_the_end(parts):
    parts[0].config = replace(parts[0].config, pad_token_id=1)
    name, detail = failure(parts)
    assert name == "special tokens"
    assert "the same token" in detail


def test_nothing_trainable(parts):
    parts[0].requires_grad_(False)
    name, detail = failure(parts)
    assert name == "gradients"
    assert "no parameter is trainable" in detail


def test_parameter_without_gradient(parts):
    model = parts[0]
    model.extra = torch.nn.Parameter(torch.ones(3, 3))
    name, detail = failure(parts)
    assert name == "gradients"
    assert "1 parameters get no gradient, the first is extra" in detail


def test_dead_expert(parts):
    experts = parts[0].model.layers[1].mlp.experts
    with torch.no_grad():
        experts.gate_up_proj[5] = 0
        experts.down_proj[5] = 0
    name, detail = failure(parts)
    assert name == "experts"
    assert "of experts [5] gets no gradient" in detail


def test_exploding_rate(parts):
    parts[4] = parts[4].model_copy(update={"learning_rate": 50.0, "gradient_clip_val": 0.0})
    name, detail = failure(parts)
    assert name == "overfit"
    assert "at train.learning_rate 50: it explodes" in detail
