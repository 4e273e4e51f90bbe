"""Each tracker receives the curves, in its own offline files."""

from __future__ import annotations

import importlib.abc
import json
import sys
from dataclasses import replace

import pytest

from finseek.core.errors import MissingPart
from finseek.train import TrackingOptions, load_engine
from finseek.train.tracking import trackers


def test_all_three_receive_the_curves_of_a_run(make_job):
    job = replace(
        make_job(max_steps=6, log_every_n_steps=2),
        tracking=TrackingOptions(tensorboard=True, wandb=True, mlflow=True, project="curves"),
    )
    load_engine("lightning").run(job)
    losses = [json.loads(line)["loss"] for line in (job.output / "train_log.jsonl").read_text().splitlines()]
    folder = job.output / "tracking"

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next((folder / "tensorboard").iterdir()))).Reload()
    scalars = events.Scalars("loss")
    assert [event.step for event in scalars] == [2, 4, 6]
    assert [event.value for event in scalars] == pytest.approx(losses, rel=1e-6)

    metric = next((folder / "mlruns").rglob("metrics/loss"))
    assert [float(line.split()[1]) for line in metric.read_text().splitlines()] == pytest.approx(losses)

    stored = next((folder / "wandb").rglob("*.wandb"))
    assert b"validation_loss" in stored.read_bytes()


def test_a_missing_tracker_is_named(tmp_path, monkeypatch):
    class Absent(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "wandb":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.split(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with (
        pytest.raises(MissingPart, match=r"finseek\[tracking\]"),
        trackers(TrackingOptions(wandb=True), tmp_path, "run", {}),
    ):
        pass
