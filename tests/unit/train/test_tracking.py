"""Each tracker receives the curves, in its own offline files."""

from __future__ import annotations

import importlib.abc
import json
import struct
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
        name="my-run",
        origin="5e1f",
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

    (told,) = folder.glob("mlruns/*/*/artifacts/config.json")
    assert json.loads(told.read_text())["origin"] == "5e1f"
    assert "my-run" in next((folder / "mlruns").rglob("mlflow.runName")).read_text()
    assert next((folder / "tensorboard").iterdir()).name == "my-run"

    records = list(wandb_records(next((folder / "wandb").rglob("*.wandb"))))
    history = [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert [line["loss"] for line in history] == pytest.approx(losses)
    assert {"grad_norm", "memory_gib", "router_load_max", "tokens_per_second"} <= set(history[0])
    (run,) = (record.run for record in records if record.HasField("run"))
    assert (run.display_name, run.project) == ("my-run", "curves")
    assert {item.key: item.value_json for item in run.config.update}["origin"] == '"5e1f"'


def wandb_records(file):
    """What an offline run of Weights & Biases holds: protobuf records in the blocks of a LevelDB log."""
    from wandb.proto import wandb_internal_pb2

    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            parsed = wandb_internal_pb2.Record()
            parsed.ParseFromString(record)
            yield parsed
            record = b""


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
