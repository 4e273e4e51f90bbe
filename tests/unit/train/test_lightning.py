"""The engine learns, repeats itself, goes on after a kill as though nothing had happened, and fails in one line."""

from __future__ import annotations

import json
import os
import signal
import warnings
from dataclasses import replace

import pytest
import torch

from finseek.core.errors import ConfigError, FinseekError
from finseek.model import DeepSeekV3
from finseek.train import ModelInit, ParallelOptions, TrainJob, TrainResult, load_engine
from finseek.train.state import TIME_FIELDS, StateWriter, newest_state, states

TINY = {"num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 2}


def run(job: TrainJob) -> TrainResult:
    return load_engine("lightning").run(job)


def lines(job: TrainJob) -> list[dict]:
    read = [json.loads(line) for line in (job.output / "train_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIME_FIELDS} for line in read]


def weights(job: TrainJob) -> bytes:
    return (job.output / "checkpoint" / "model.safetensors").read_bytes()


def test_learns_the_planted_rule_and_leaves_a_loadable_checkpoint(make_job, capfd):
    job = make_job(epochs=8, check=True)
    result = run(job)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    log = lines(job)
    assert result.steps == 80
    assert log[-1]["step"] == 80
    assert log[-1]["epoch"] == 7
    assert log[-1]["tokens"] == result.tokens
    assert log[-1]["action_loss"] < 0.3 < 1 < log[0]["action_loss"]
    best = min(line["validation_loss"] for line in log if line["validation_loss"] is not None)
    assert best == result.best_validation_loss < 0.5
    assert sorted(file.name for file in job.output.iterdir()) == ["checkpoint", "train_log.jsonl"]
    model = DeepSeekV3.from_pretrained(result.checkpoint)
    assert model.config.eos_token_id == 1
    assert any(router.e_score_correction_bias.abs().sum() > 0 for router in model.routers().values())
    assert (result.checkpoint / "tokenizer_config.json").is_file()


def test_same_job_same_bytes_and_other_seed_others(make_job):
    jobs = [make_job("a", epochs=1), make_job("b", epochs=1), make_job("c", seed=2, epochs=1)]
    for job in jobs:
        run(job)
    first, second, other = jobs
    assert weights(first) == weights(second)
    assert lines(first) == lines(second)
    assert weights(first) != weights(other)


@pytest.mark.parametrize("average_decay", [0.0, 0.9])
def test_goes_on_after_interruptions_to_the_bit(make_job, average_decay):
    whole = make_job("whole", average_decay=average_decay, val_check_interval=9)
    run(whole)
    broken = replace(whole, output=whole.output.with_name("broken"))

    for last in (6, 7, 25):

        def stop(label: str, done: float, total: float | None, unit: str, last: int = last) -> None:
            if label == "train" and done == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            load_engine("lightning").run(broken, stop)
    run(broken)
    assert lines(broken) == lines(whole)
    assert weights(broken) == weights(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_preemption_signal_saves_the_step_at_work(make_job, number):
    whole = make_job("whole", epochs=1)
    run(whole)
    preempted = replace(whole, output=whole.output.with_name("preempted"))
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)]

    def preempt(label: str, done: float, total: float | None, unit: str) -> None:
        if label == "train" and done == 4:
            os.kill(os.getpid(), number)

    with pytest.raises(FinseekError, match=f"stopped by {number.name} after step [45] of 10"):
        load_engine("lightning").run(preempted, preempt)
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)] == handlers
    started = []
    load_engine("lightning").run(preempted, lambda label, done, total, unit: started.append((label, done)))
    assert min(done for label, done in started if label == "train") >= 5
    assert lines(preempted) == lines(whole)
    assert weights(preempted) == weights(whole)


def test_another_job_does_not_take_up_the_state(make_job):
    job = make_job("out", epochs=1)

    def stop(label: str, done: float, total: float | None, unit: str) -> None:
        if label == "train" and done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_engine("lightning").run(job, stop)
    other, fresh = make_job("out", epochs=1, learning_rate=1e-3), make_job("fresh", epochs=1, learning_rate=1e-3)
    run(other)
    run(fresh)
    assert weights(other) == weights(fresh)


def test_accumulated_passes_give_the_loss_of_the_whole_batch(make_job):
    common = {"max_steps": 3, "log_every_n_steps": 1, "balance_loss": 0.1, "answer_only_loss": False}
    common["learning_rate"] = 1e-5  # Adam's first steps go by the sign of a gradient, however small it is
    whole, parts = make_job("whole", micro_batch_size=16, **common), make_job("parts", micro_batch_size=4, **common)
    run(whole)
    run(parts)
    for one, other in zip(lines(whole), lines(parts), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def test_loss_weights_change_what_is_learned(make_job):
    job = make_job(loss_weights={"action": 0.0, "rest": 1.0}, epochs=4)
    run(job)
    assert lines(job)[-1]["action_loss"] > 1.0


def test_starts_from_a_checkpoint_and_keeps_the_last_weights(make_job):
    first = make_job("first", epochs=2)
    result = run(first)
    second = replace(
        make_job("second", max_steps=2, keep="last", learning_rate=1e-5, log_every_n_steps=1),
        init=ModelInit(path=result.checkpoint),
    )
    run(second)
    assert lines(second)[0]["loss"] == pytest.approx(lines(first)[-1]["loss"], rel=0.5)
    before, after = (
        DeepSeekV3.from_pretrained(result.checkpoint),
        DeepSeekV3.from_pretrained(second.output / "checkpoint"),
    )
    moved = (before.lm_head.weight - after.lm_head.weight).abs().max()
    assert 0 < moved < 1e-4


def test_divergence_stops_with_a_diagnosis(make_job):
    match = r"diverged: the loss of step \d+ .* no weights were validated .* lower train.learning_rate"
    with pytest.raises(FinseekError, match=match):
        run(make_job(learning_rate=1e30, warmup_steps=0, gradient_clip_val=0))


def test_a_loss_that_climbs_stops_and_leaves_the_last_good_weights(make_job):
    # The rate grows by 0.004 a step: sound at first, far too high later.
    job = make_job(learning_rate=40.0, warmup_steps=10_000, gradient_clip_val=0, val_check_interval=2, epochs=40)
    with pytest.raises(FinseekError, match=r"diverged: the loss .*; the last good weights, of step (\d+)") as stopped:
        run(job)
    best = min(filter(None, (line["validation_loss"] for line in lines(job))))
    assert f"validation loss {best:.3g}" in str(stopped.value)
    good = DeepSeekV3.from_pretrained(job.output / "last_good")
    assert all(parameter.isfinite().all() for parameter in good.parameters())
    assert not (job.output / "checkpoint").exists()


def test_the_log_holds_speed_memory_and_what_the_experts_do(make_job):
    job = replace(
        make_job(max_steps=4, log_every_n_steps=2), init=ModelInit("tiny", None, TINY | {"num_nextn_predict_layers": 1})
    )
    run(job)
    first, last = (json.loads(line) for line in (job.output / "train_log.jsonl").read_text().splitlines())
    assert first["mtp_loss"] > 4 > 0 < first["balance_loss"]
    assert first["router_load_max"] >= 1 >= first["router_load_min"]
    assert first["grad_norm"] > 0
    assert last["memory_gib"] > 0.1
    assert last["tokens_per_second"] > 0
    assert last["mfu"] is None or torch.cuda.is_available()


@pytest.mark.parametrize("change", [{"packed_sequence_size": 256}, {"gradient_checkpointing": True}])
def test_packing_and_recomputation_change_no_number(make_job, change):
    common = {"max_steps": 5, "log_every_n_steps": 1, "balance_loss": 0.0, "learning_rate": 1e-4}
    plain, other = make_job("plain", **common), make_job("other", **common, **change)
    run(plain)
    run(other)
    for one, two in zip(lines(plain), lines(other), strict=True):
        for key in ("loss", "action_loss", "grad_norm", "router_load_max"):
            assert one[key] == pytest.approx(two[key], rel=1e-5), key
    if "gradient_checkpointing" in change:
        assert weights(plain) == weights(other)


def test_adapters_alone_are_trained_written_and_loaded_on_their_base(make_job):
    base = run(make_job("base", max_steps=1)).checkpoint
    options = {"max_steps": 6, "lora": {"rank": 2, "alpha": 4.0, "dropout": 0.1}, "learning_rate": 1e-2}
    job = replace(make_job("adapted", log_every_n_steps=1, **options), init=ModelInit(path=base))
    result = run(job)
    assert lines(job)[-1]["loss"] < lines(job)[0]["loss"]
    config = json.loads((result.checkpoint / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (2, 4.0, str(base))
    assert not list(result.checkpoint.glob("model*.safetensors"))

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), result.checkpoint)
    moved = [p for name, p in theirs.named_parameters() if "lora_B" in name]
    assert moved
    assert all(parameter.abs().sum() > 0 for parameter in moved)


def test_the_newest_states_stay_and_the_writer_tells_its_error(make_job, tmp_path):
    writer = StateWriter(tmp_path, keep=2)
    for step in (1, 2, 3):
        writer.write(f"states/step-{step}", {"fingerprint": "f", "step": step})
    writer.wait()
    assert [path.name for path in states(tmp_path / "states")] == ["step-2", "step-3"]
    assert newest_state(tmp_path, "f")["step"] == 3
    assert newest_state(tmp_path, "another") is None
    (tmp_path / "file").write_text("")
    writer.write("file/step-4", {})
    with pytest.raises(OSError, match="file"):
        writer.wait()


def test_refuses_what_it_cannot_run(make_job):
    job = make_job()
    with pytest.raises(ConfigError, match="engine lightning has none: set it to 1"):
        run(replace(job, parallel=ParallelOptions(devices_per_node=2, context_parallel_size=2)))
    with pytest.raises(ConfigError, match=r"give model.path instead of model.preset"):
        run(make_job(lora={"rank": 2}))
    with pytest.raises(ConfigError, match="max_position_embeddings 4096"):
        run(make_job(seq_length=5000))
    with pytest.raises(ConfigError, match="'nemo' is none of lightning"):
        load_engine("nemo")


def test_settings_of_the_process_are_put_back(make_job):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with warnings.catch_warnings():
        run(make_job(max_steps=1, threads=threads + 1, global_batch_size=2, micro_batch_size=2))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()
