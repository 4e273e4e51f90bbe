"""``finseek train --check``: the samples are made, everything is looked at, nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finseek.cli.main import app


@pytest.mark.parametrize("engine", ["lightning", "trl"])
def test_a_sound_config_passes_and_trains_nothing(study: Path, tmp_path: Path, engine: str) -> None:
    off = ["train.balance_loss=0", "train.router_bias_update_rate=0", f"train.engine={engine}"]
    arguments = ["--quiet", "train", str(study), "--check"]
    for assignment in off:
        arguments += ["--set", assignment]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line[8:].split(":")[0] for line in lines] == [
        "loss mask", "action tokens", "special tokens", "volume", "labels", "gradients", "experts", "overfit",
    ]  # fmt: skip
    assert not any(line.startswith("FAILED") for line in lines)
    assert "tokens an epoch" in lines[3]
    assert not (tmp_path / "runs" / "study" / "train").exists()


def test_a_fault_is_named_and_the_exit_code_says_so(study: Path) -> None:
    arguments = ["--quiet", "train", str(study), "--check", "--json", "--set", "train.learning_rate=50"]
    result = CliRunner().invoke(app, [*arguments, "--set", "train.gradient_clip_val=0"])
    assert result.exit_code == 2
    found = {each["name"]: each for each in json.loads(result.stdout)}
    assert found["overfit"]["passed"] is False
    assert "it explodes" in found["overfit"]["detail"]
