"""`finseek plan` in real processes: what fits exits 0, what does not 1 with what would, what cannot be 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
model: {preset: base}
train: {seq_length: 2048, micro_batch_size: 2, global_batch_size: 64, max_steps: 500}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def plan(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "finseek.cli.main", "plan", str(config), *arguments]
    return subprocess.run(command, cwd=config.parent, capture_output=True, text=True, timeout=120, check=False)


def test_what_fits_is_told_with_its_price(config: Path) -> None:
    done = plan(config, "--hardware", "4090", "--price", "0.5", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    asked = told["asked"]
    assert asked["fits"]
    assert asked["memory"]["total"] < told["hardware"]["memory"]
    assert asked["cost"] == pytest.approx(asked["hours"] * 0.5)
    assert len(told["activations_by_layer"]) == 12
    assert told["refusal"] is None


def test_what_does_not_fit_is_refused_with_what_would(config: Path) -> None:
    done = plan(config, "--set", "train.micro_batch_size=64", "--hardware", "4090")
    assert done.returncode == 1
    assert "does not fit" in done.stdout
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("finseek: 0.")
    assert "the largest part is activations" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--hardware", "H800"], "'H800' is none of A100-80, H100"),
        (["--set", "train.engine=trl", "--set", "parallel.devices_per_node=2", "--set",
          "parallel.tensor_model_parallel_size=2"], "engine trl splits no axis alone"),
        (["--set", "parallel.devices_per_node=3", "--set", "parallel.expert_model_parallel_size=3"],
         "EP 3 does not divide 8 experts"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_wrong_input(config: Path, arguments: list[str], says: str) -> None:
    done = plan(config, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stdout == ""
