"""A job that was killed and started again leaves the losses and the weights of one that was never disturbed."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest

from finseek.train import load_engine

_spec = importlib.util.spec_from_file_location("killing", Path(__file__).with_name("killing.py"))
killing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(killing)

EXPERTS = {"devices_per_node": 2, "expert_model_parallel_size": 2}
MTP = {"num_nextn_predict_layers": 1}
OPTIONS = {"checkpoint_every": 4, "val_check_interval": 7, "average_decay": 0.9}


def survive(make_job, parallel: dict, steps: list[int], max_steps: int = 20) -> None:
    whole = make_job("whole", parallel, MTP, max_steps=max_steps, **OPTIONS)
    if parallel:
        killing.finish(whole)
    else:
        load_engine("lightning").run(whole)
    broken = killing.beside(whole, "broken")
    reached = [killing.kill_at(broken, step) for step in steps]
    assert max(reached) < max_steps
    (broken.output / "states" / ".step-99.partial").mkdir(parents=True, exist_ok=True)  # half a state
    killing.finish(broken)
    assert killing.lines(broken) == killing.lines(whole)
    assert killing.weights(broken) == killing.weights(whole)
    assert sorted(file.name for file in broken.output.iterdir()) == ["checkpoint", "train_log.jsonl"]


def test_one_process_killed_twice(make_job):
    survive(make_job, {}, [3, 11])


def test_two_processes_killed_twice(make_job):
    survive(make_job, EXPERTS, [5, 13])


@pytest.mark.soak
@pytest.mark.parametrize("parallel", [{}, EXPERTS], ids=["1 process", "2 processes"])
def test_killed_at_ten_random_steps(make_job, parallel):
    survive(make_job, parallel, sorted(random.Random(7).sample(range(1, 36), 10)), max_steps=40)
