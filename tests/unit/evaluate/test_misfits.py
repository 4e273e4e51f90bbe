"""A model, tokenizer, device or prompt that do not fit are one line, never a figure and never a traceback."""

from __future__ import annotations

import json
import shutil

import pytest

from finseek.core.errors import ConfigError, InputError
from finseek.evaluate import EvaluateOptions, load_backend, predict
from finseek.evaluate.backends.local import check_device
from finseek.pipeline import load_config
from finseek.pipeline.stages import STAGES

BACKENDS = pytest.mark.parametrize("backend", ["native", "huggingface"])


@pytest.fixture
def copied(memoriser, tmp_path):
    """A copy of a good checkpoint, to be spoilt, and its samples."""
    folder, samples = memoriser("action first")
    shutil.copytree(folder, tmp_path / "checkpoint")
    return tmp_path / "checkpoint", samples


def answers(folder, samples, backend):
    options = EvaluateOptions(backend=backend)
    return predict(samples, load_backend(options, folder, ("action",)), options)


def with_config(folder, **fields):
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(known | fields))


@BACKENDS
def test_a_prompt_beyond_the_context_is_not_answered(copied, backend):
    folder, samples = copied
    longest = max(len(load_backend(EvaluateOptions(), folder).encoder.prompt_ids(sample)) for sample in samples)
    with_config(folder, max_position_embeddings=longest + 20)
    assert {row.status for row in answers(folder, samples, backend)} == {"scored"}
    with_config(folder, max_position_embeddings=longest + 1)
    with pytest.raises(InputError, match=rf"has {longest} tokens, the model's context is {longest + 1}.*shorten the"):
        answers(folder, samples, backend)


@BACKENDS
def test_a_tokenizer_of_another_model_is_refused(copied, backend):
    folder, samples = copied
    tokens = json.loads((folder / "tokenizer.json").read_text())
    number = max(tokens["model"]["vocab"].values()) + 1
    tokens["added_tokens"].append(tokens["added_tokens"][0] | {"id": number, "content": "<new>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(InputError, match=rf"knows {number} tokens, the tokenizer beside it {number + 1}"):
        answers(folder, samples, backend)


@BACKENDS
def test_damaged_files_are_one_line(copied, backend):
    folder, samples = copied
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-10])
    with pytest.raises(InputError, match="incomplete metadata"):
        answers(folder, samples, backend)
    (folder / "tokenizer_config.json").write_text("{")
    for template in ("simple", "tokenizer"):
        with pytest.raises(InputError, match=r"tokenizer_config\.json is not JSON"):
            load_backend(EvaluateOptions(backend=backend), folder, ("action",), template=template)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("evaluate.device=gpu", "should match pattern"),
        ("evaluate.temperature=0.7", r"temperature 0\.7 has no effect in mode score"),
    ],
)
def test_options_without_effect_are_refused(setting, says):
    with pytest.raises(ConfigError, match=says):
        load_config(None, [setting])


def test_a_device_that_is_not_here_is_refused_before_any_training():
    with pytest.raises(InputError, match=r"evaluate\.device cuda:99 is not on this machine, which has 1 cpu, "):
        check_device("cuda:99")
    evaluate = next(stage for stage in STAGES if stage.name == "evaluate")
    with pytest.raises(InputError, match="is not on this machine"):
        evaluate.check(load_config(None, ["evaluate.device=cuda:99"]).config)


@pytest.mark.parametrize(
    "server", ["{model: m}", "{base_url: 'http://localhost/v1'}", "{model: m, base_url: localhost}"]
)
def test_a_server_without_an_address_is_refused_before_any_training(server):
    evaluate = next(stage for stage in STAGES if stage.name == "evaluate")
    config = ["evaluate.backend=openai", "evaluate.mode=generate", f"evaluate.openai={server}"]
    with pytest.raises(ConfigError, match=r"set evaluate\.openai\.model and evaluate\.openai\.base_url to an address"):
        evaluate.check(load_config(None, config).config)
