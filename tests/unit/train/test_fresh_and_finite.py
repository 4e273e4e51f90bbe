"""No state of another base is taken up, and weights that no longer give a number are never called a result."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from finseek.core.errors import FinseekError
from finseek.train import ModelInit, load_engine
from finseek.train.state import BLOCK, BLOCKS, probe


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


def test_large_files_are_told_apart_by_their_blocks(tmp_path):
    size = BLOCKS * BLOCK * 3
    file = tmp_path / "weights"
    file.write_bytes(bytes(size))
    first = probe(file)
    for place in (0, size - 1, size // 2 // BLOCK * BLOCK):
        with file.open("r+b") as content:
            content.seek(place)
            content.write(b"\1" * min(4 * BLOCK, size - place))
        assert probe(file) != first
        first = probe(file)


@pytest.mark.parametrize("engine", ["lightning", "trl"])
def test_weights_that_explode_in_the_last_step_are_no_result(make_job, engine):
    untrl = {"router_bias_update_rate": 0, "balance_loss": 0}
    job = make_job(engine=engine, max_steps=1, learning_rate=1e20, warmup_steps=0, **untrl)
    with pytest.raises(
        FinseekError, match=r"diverged: the validation loss of step 1 is nan.* lower train.learning_rate"
    ):
        load_engine(engine).run(job)
    assert not (job.output / "checkpoint").exists()
