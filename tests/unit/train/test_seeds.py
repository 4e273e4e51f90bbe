"""Several seeds: the first goes on, the spread is told, what is done is not done again."""

from __future__ import annotations

import json
from statistics import stdev

import pytest

from finseek.train import TrainOptions
from finseek.train.seeds import train_seeds


def test_seeds_train_apart_and_their_spread_is_told(make_job):
    job = make_job(max_steps=4, seeds=(5, 1, 2))
    steps = []
    result, summary = train_seeds(job, lambda label, done, total, unit: steps.append(label))
    losses = summary["validation_loss"]
    assert list(losses) == ["5", "1", "2"]
    assert result.best_validation_loss == losses["5"]
    assert result.checkpoint == job.output / "checkpoint"
    assert summary["standard_deviation"] == pytest.approx(stdev(losses.values())) != 0
    assert json.loads((job.output / "seeds" / "summary.json").read_text()) == summary
    assert sorted(path.name for path in (job.output / "seeds").iterdir()) == ["seed-1", "seed-2", "summary.json"]
    alone, one = train_seeds(make_job("alone", seed=1, max_steps=4))
    assert one["validation_loss"] == {"1": losses["1"]}
    assert one["standard_deviation"] is None
    weights = (alone.checkpoint / "model.safetensors").read_bytes()
    assert (job.output / "seeds" / "seed-1" / "checkpoint" / "model.safetensors").read_bytes() == weights


def test_an_interrupted_series_goes_on_with_the_next_seed(make_job):
    job = make_job(max_steps=3, seeds=(5, 1))
    started = []

    def stop(label: str, done: float, total: float | None, unit: str) -> None:
        started.append(done)
        if label == "train" and len([each for each in started if each == 1]) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_seeds(job, stop)
    again = []
    train_seeds(job, lambda label, done, total, unit: again.append(label == "train"))
    assert sum(again) == 3


def test_a_seed_named_twice_is_refused():
    with pytest.raises(ValueError, match=r"seeds \[1, 1\] repeat"):
        TrainOptions(seeds=(1, 1))
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        TrainOptions(seeds=(1, -1))


def test_a_seed_that_another_config_trained_is_trained_again(make_job):
    def stop(label: str, done: float, total: float | None, unit: str) -> None:
        if label == "train":
            started.append(done)
            if started.count(1) == 2:
                raise KeyboardInterrupt

    started: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        train_seeds(make_job(max_steps=2, seeds=(5, 1)), stop)
    _, summary = train_seeds(make_job(max_steps=2, seeds=(5, 1), learning_rate=1e-4))
    assert summary == train_seeds(make_job("apart", max_steps=2, seeds=(5, 1), learning_rate=1e-4))[1]
