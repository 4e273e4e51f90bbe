"""Engine trl: the same losses as lightning, adapters, 4-bit, resume, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finseek.core.errors import ConfigError, FinseekError, InputError, Note
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.samples import Encoder, load_samples
from finseek.train import ModelInit, ParallelOptions, TrainJob, TrainOptions, TrainResult, load_engine
from finseek.train.state import TIME_FIELDS

MakeJob = Callable[..., TrainJob]
ALIKE = {"balance_loss": 0.0, "mtp_loss": 0.0, "router_bias_update_rate": 0.0}


@pytest.fixture(scope="session")
def base(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DeepSeek-V3 whose in-features are multiples of 64 and whose router biases are not zero."""
    folder = tmp_path_factory.mktemp("base") / "model"
    tokens = {"vocab_size": Encoder(corpus / "tokenizer").vocab_size, "bos_token_id": 0, "eos_token_id": 1}
    shape = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "moe_intermediate_size": 64, "n_routed_experts": 4, "q_lora_rank": 64, "kv_lora_rank": 64,
        "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16, "initializer_range": 0.1,
    }  # fmt: skip
    model = DeepSeekV3(DeepSeekConfig.preset("tiny", **tokens, **shape), seed=3)
    for router in model.routers().values():
        router.e_score_correction_bias.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(folder)
    return folder


def lines(job: TrainJob) -> list[dict]:
    read = [json.loads(line) for line in (job.output / "train_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIME_FIELDS} for line in read]


def run(job: TrainJob) -> TrainResult:
    return load_engine(job.options.engine).run(job)


@pytest.mark.parametrize("init", ["path", "preset"])
def test_losses_are_those_of_lightning(make_job: MakeJob, base: Path, init: str) -> None:
    common = ALIKE | {"max_steps": 20, "log_every_n_steps": 1, "micro_batch_size": 4, "check": False}
    common |= {"loss_weights": {"action": 2.0, "rest": 0.5}, "val_check_interval": 20}
    logs, results = {}, {}
    for engine in ("lightning", "trl"):
        job = make_job(engine, engine=engine, **common)
        job = replace(job, init=ModelInit(path=base)) if init == "path" else job
        results[engine] = run(job)
        logs[engine] = lines(job)
    ours, theirs = logs["lightning"], logs["trl"]
    assert [line["tokens"] for line in ours] == [line["tokens"] for line in theirs]
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]
    for name in ("loss", "action_loss", "grad_norm"):
        assert theirs[0][name] == pytest.approx(ours[0][name], abs=1e-4)
        assert theirs[-1][name] == pytest.approx(ours[-1][name], rel=1e-2)
    assert theirs[-1]["validation_loss"] == pytest.approx(ours[-1]["validation_loss"], rel=1e-2)
    assert ours[-1]["loss"] < 0.8 * ours[0]["loss"]
    left, right = (DeepSeekV3.from_pretrained(results[engine].checkpoint) for engine in ("lightning", "trl"))
    for (name, one), other in zip(left.state_dict().items(), right.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def adapt(job: TrainJob, base: Path, **lora: object) -> TrainJob:
    options = job.options.model_dump() | {"lora": {"rank": 4, "alpha": 16, "dropout": 0.0} | lora}
    return replace(job, init=ModelInit(path=base), options=TrainOptions.model_validate_json(json.dumps(options)))


LORA = {"engine": "trl", "check": False, "log_every_n_steps": 1, "learning_rate": 1e-2}


@pytest.mark.parametrize("targets", ["attention", "attention+experts", "all"])
def test_lora_is_that_of_lightning(make_job: MakeJob, base: Path, targets: str) -> None:
    logs, folders = {}, {}
    for engine in ("lightning", "trl"):
        options = LORA | ALIKE | {"engine": engine, "max_steps": 6, "val_check_interval": 6}
        job = adapt(make_job(engine, **options), base, target_modules=targets, dropout=0.0)
        folders[engine] = run(job).checkpoint
        logs[engine] = lines(job)
    for name in ("loss", "grad_norm"):
        assert logs["trl"][0][name] == pytest.approx(logs["lightning"][0][name], abs=1e-4)
        assert logs["trl"][-1][name] == pytest.approx(logs["lightning"][-1][name], rel=1e-2)
    assert logs["trl"][-1]["loss"] < 0.95 * logs["trl"][0]["loss"]
    ours, theirs = (load_file(folders[engine] / "adapter_model.safetensors") for engine in ("lightning", "trl"))
    assert ours.keys() == theirs.keys()
    for name, one in ours.items():
        torch.testing.assert_close(one, theirs[name], atol=2e-3, rtol=0, msg=lambda m, name=name: f"{name}: {m}")
    config = json.loads((folders["trl"] / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base.resolve())
    assert (folders["trl"] / "tokenizer.json").is_file()


@pytest.fixture(scope="session")
def llama(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with biases in its attention."""
    import transformers

    folder = tmp_path_factory.mktemp("llama") / "model"
    config = transformers.LlamaConfig(
        vocab_size=Encoder(corpus / "tokenizer").vocab_size, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, attention_bias=True, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("four_bit", [False, True])
@pytest.mark.parametrize("lora", [{"bias": "all", "dropout": 0.1}, {"rslora": True, "target_modules": "all"}])
def test_adapters_of_a_llama(make_job: MakeJob, llama: Path, four_bit: bool, lora: dict) -> None:
    options = LORA | {"load_in_4bit": four_bit, "lora": {}, "epochs": 4, "gradient_checkpointing": True}
    job = adapt(make_job(**options), llama, **lora)
    result = run(job)
    log = lines(job)
    assert log[-1]["loss"] < 0.9 * log[0]["loss"]
    saved = load_file(result.checkpoint / "adapter_model.safetensors")
    adapted = {name.split(".lora_A")[0].rpartition(".")[2] for name in saved if ".lora_A" in name}
    attention = {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert adapted == attention | ({"gate_proj", "up_proj", "down_proj"} if "target_modules" in lora else set())
    assert any(name.endswith(".bias") for name in saved) == ("bias" in lora)
    assert not any(value.isnan().any() for value in saved.values())
    assert not (result.checkpoint / "README.md").exists()
    assert sorted(file.name for file in job.output.iterdir()) == ["checkpoint", "train_log.jsonl"]


def test_loftq_starts_nearer_to_the_whole_weights(make_job: MakeJob, llama: Path) -> None:
    from finseek.train.engines.trl.model import load_model

    ids = torch.randint(3, 300, (4, 30), generator=torch.Generator().manual_seed(0))
    logits = {}
    for name, options in {
        "whole": {},
        "plain": {"load_in_4bit": True},
        "loftq": {"load_in_4bit": True, "loftq": True},
    }.items():
        job = make_job(engine="trl", load_in_4bit=options.get("load_in_4bit", False), lora={})
        job = adapt(job, llama, rank=16, target_modules="all", dropout=0.0, loftq=options.get("loftq", False))
        with torch.no_grad():
            model, _ = load_model(job, Encoder(job.tokenizer), bf16=False)
            logits[name] = model.eval()(ids).logits
    plain, loftq = (float((logits[name] - logits["whole"]).norm()) for name in ("plain", "loftq"))
    assert 0 < loftq < 0.8 * plain


@pytest.mark.parametrize("adapted", [False, True])
def test_goes_on_after_interruptions_to_the_bit(make_job: MakeJob, llama: Path, adapted: bool) -> None:
    options = LORA | {"epochs": 2, "val_check_interval": 7, "checkpoint_every": 4}
    whole = make_job("whole", **options)
    whole = adapt(whole, llama, dropout=0.2) if adapted else replace(whole, init=ModelInit(path=llama))
    run(whole)
    broken = replace(whole, output=whole.output.with_name("broken"))
    for last in (5, 6, 13):

        def stop(label: str, done: float, total: float | None, unit: str, last: int = last) -> None:
            if label == "train" and done == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            load_engine("trl").run(broken, stop)
    result = run(broken)
    assert lines(broken) == lines(whole)
    file = "adapter_model.safetensors" if adapted else "model.safetensors"
    assert (result.checkpoint / file).read_bytes() == (whole.output / "checkpoint" / file).read_bytes()


def test_no_sample_is_dropped_and_the_prompt_that_fills_all_is_refused(make_job: MakeJob, llama: Path) -> None:
    """TRL drops examples whose prompt fills max_length; here they are an error that names the sample."""
    job = replace(make_job(engine="trl", epochs=1, check=False, seq_length=128), init=ModelInit(path=llama))
    result = run(job)
    assert result.steps == 10
    assert result.tokens == sum(
        len(Encoder(job.tokenizer).encode(sample).input_ids) for sample in load_samples(job.training)
    )
    with pytest.raises(InputError, match="seq_length is 8: raise seq_length"):
        run(replace(job, options=job.options.model_copy(update={"seq_length": 8})))


def notes(job: TrainJob) -> tuple[list[str], TrainResult]:
    with pytest.warns(Note) as said:
        result = run(job)
    return [str(each.message) for each in said], result


def test_what_it_says(make_job: MakeJob, base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = adapt(make_job(**LORA | {"max_steps": 1, "unsloth": True, "log_every_n_steps": 1}), base,
                target_modules="attention+experts", dropout=0.05)  # fmt: skip
    said, _ = notes(job)
    assert said[0].startswith("train.unsloth: Unsloth is not installed")
    assert said[1] == "lora.dropout 0.05 is 0 on the weights of routed experts; it holds on the other targets"
    job = replace(make_job(engine="trl", check=False, max_steps=1), init=ModelInit(path=base))
    assert notes(job)[0] == [
        "engine trl does not balance the experts' load: train.balance_loss and train.router_bias_update_rate have no"
        " effect"
    ]
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_multi_token_prediction_is_left_out_and_said(make_job: MakeJob, base: Path, tmp_path: Path) -> None:
    config = replace(DeepSeekV3.from_pretrained(base).config, num_nextn_predict_layers=1)
    DeepSeekV3(config, seed=1).save_pretrained(tmp_path / "mtp")
    job = replace(make_job(engine="trl", check=False, max_steps=1), init=ModelInit(path=tmp_path / "mtp"))
    said, result = notes(job)
    assert said[0].startswith("engine trl trains no multi-token prediction and leaves its layers out")
    assert DeepSeekV3.from_pretrained(result.checkpoint).config.num_nextn_predict_layers == 0


def test_divergence_stops_with_the_last_good_weights(make_job: MakeJob, llama: Path) -> None:
    job = make_job(engine="trl", check=False, learning_rate=1e30, warmup_steps=0, gradient_clip_val=0.0)
    with pytest.raises(FinseekError, match=r"diverged: the loss .* lower train.learning_rate \(1e\+30\)"):
        run(replace(job, init=ModelInit(path=llama)))


def test_refuses_what_it_cannot_run(make_job: MakeJob, base: Path, llama: Path, tmp_path: Path) -> None:
    job = make_job(engine="trl")
    with pytest.raises(ConfigError, match="engine trl runs on one"):
        run(replace(job, parallel=ParallelOptions(devices_per_node=2)))
    with pytest.raises(ConfigError, match=r"model.preset has random weights: give model.path"):
        run(make_job(engine="trl", lora={}))
    four = ["q_proj", "k_proj", "v_proj", "o_proj"]
    with pytest.raises(ConfigError, match=r"match nothing in a deepseek_v3 model, whose attention has q_a_proj"):
        run(adapt(job, base, target_modules=four))
    with pytest.raises(ConfigError, match="exceeds the model's max_position_embeddings 2048"):
        run(replace(make_job(engine="trl", seq_length=4000), init=ModelInit(path=llama)))
    odd = DeepSeekV3(replace(DeepSeekV3.from_pretrained(base).config, kv_lora_rank=48))
    odd.save_pretrained(tmp_path / "odd")
    with pytest.raises(ConfigError, match=r"multiples of 64, model.layers.0.self_attn.kv_b_proj has 48"):
        run(adapt(make_job(engine="trl", load_in_4bit=True, lora={}), tmp_path / "odd"))
    with pytest.raises(ConfigError, match="cannot be adapted in 4-bit where there are routed experts"):
        run(adapt(make_job(engine="trl", load_in_4bit=True, lora={}), base, target_modules="all"))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no config that transformers can read"):
        run(replace(job, init=ModelInit(path=tmp_path / "none")))
