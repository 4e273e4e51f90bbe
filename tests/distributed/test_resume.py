"""A job that was killed and started again leaves the losses and the weights of one that was never disturbed."""

from __future__ import annotations

import random
import signal

import killing
import pytest

from finseek.train import TrainJob, load_engine

EXPERTS = {"devices_per_node": 2, "expert_model_parallel_size": 2}
MTP = {"num_nextn_predict_layers": 1}
OPTIONS = {"checkpoint_every": 4, "val_check_interval": 7, "average_decay": 0.9}


@pytest.fixture(scope="module")
def one(module_job) -> TrainJob:
    """A job of one process that was never disturbed."""
    job = module_job("one", {}, MTP, **OPTIONS)
    load_engine("lightning").run(job)
    return job


@pytest.fixture(scope="module")
def two(module_job) -> TrainJob:
    """The same of two processes, the experts shared between them."""
    job = module_job("two", EXPERTS, MTP, **OPTIONS)
    killing.finish(job)
    return job


def survive(whole: TrainJob, name: str, steps: list[int]) -> None:
    broken = killing.beside(whole, name)
    reached = [killing.kill_at(broken, step) for step in steps]
    assert max(reached) < whole.options.max_steps
    (broken.output / "states" / ".step-99.partial").mkdir(parents=True, exist_ok=True)  # half a state
    killing.finish(broken)
    assert_same(broken, whole)


def assert_same(broken: TrainJob, whole: TrainJob) -> None:
    assert killing.lines(broken) == killing.lines(whole)
    assert killing.weights(broken) == killing.weights(whole)
    assert sorted(file.name for file in broken.output.iterdir()) == ["checkpoint", "train_log.jsonl"]


def test_one_process_killed_twice(one):
    survive(one, "one-killed", [3, 11])


def test_two_processes_killed_twice(two):
    survive(two, "two-killed", [5, 13])


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_two_processes_told_to_stop_save_the_step_at_work(two, number):
    stopped = killing.beside(two, number.name)
    process = killing.start(stopped)
    killing.wait_for(stopped, process, 6)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == 1
    (told,) = [line for line in errors.decode().splitlines() if "training stopped by" in line]
    assert "its state is saved: start the same run again to go on" in told
    step = int(told.split("after step ")[1].split()[0])
    assert (stopped.output / "states" / f"step-{step}").is_dir()
    killing.finish(stopped)
    assert_same(stopped, two)


@pytest.mark.soak
@pytest.mark.parametrize("parallel", [{}, EXPERTS], ids=["1 process", "2 processes"])
def test_killed_at_ten_random_steps(make_job, parallel):
    whole = make_job("whole", parallel, MTP, max_steps=40, **OPTIONS)
    killing.finish(whole)
    survive(whole, "broken", sorted(random.Random(7).sample(range(1, 36), 10)))
