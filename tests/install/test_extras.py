"""Each extra in an environment of its own: its libraries come, fit each other, and do the work that they are for.

Every version is the one of constraints.txt. Needs an index of packages, an hour, and some gigabytes.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAIN = "finseek run config.yaml"
UNIT = f"-c {ROOT / 'pyproject.toml'} {ROOT / 'tests/unit/core'}"
SPA = "import numpy as np; from finseek.stats import superior_predictive_ability as p; r = np.random.default_rng(0)"
SUPERIOR = f"{SPA}.normal(size=(200, 3)); assert 0 <= p(r[:, 0], r[:, 1:], n_resamples=50) <= 1"

WORK = {
    "train": (("train",), [f"{TRAIN} --smoke", f"{TRAIN} --set train.lora.rank=4 --set run.name=lora"]),
    "stats": (("train", "stats"), [TRAIN, f"python -c '{SUPERIOR}'"]),
    "speed": (
        ("speed",),
        ["finseek backtest --signals signals.csv --prices prices.parquet --out bt"
         " --sweep slippage=" + ",".join(f"{i / 10_000}" for i in range(200))],
    ),
    "tracking": (
        ("train", "tracking"),
        [f"{TRAIN} --until train --set tracking.tensorboard=true --set tracking.wandb=true --set tracking.mlflow=true"
         " --set tracking.offline=true"],
    ),
    "nemo": (("nemo",), [f"{TRAIN} --smoke --set train.engine=automodel"]),
    "trl": (
        ("trl",),
        [f"{TRAIN} --smoke --set train.engine=trl --set train.lora.rank=4",
         "finseek samples export runs/bare-smoke hub --format hf"],
    ),
    "docs": (("train", "docs"), [f"python -m sphinx -W -q -b html {ROOT / 'docs'} html"]),
    "test": (("test",), [f"python -m pytest -q -p no:cacheprovider {UNIT}"]),
}  # fmt: skip
"""Extra: what is installed together, and commands."""


def test_every_extra_has_work_to_show() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) == {*WORK, "prices", "unsloth"}


@pytest.mark.soak
@pytest.mark.parametrize("extra", WORK)
def test_an_extra_does_its_work(fresh: Callable[..., Path], study: Path, call: Callable, extra: str) -> None:
    installed, commands = WORK[extra]
    programs = fresh(*installed)
    assert call(programs / "pip", "check", cwd=study).stdout.startswith("No broken requirements")
    states = {
        check["name"]: check["state"]
        for check in json.loads(call(programs / "finseek", "doctor", "--json", cwd=study).stdout)
    }
    assert states["python"] == "ok"
    for line in commands:
        call("bash", "-c", f'PATH="{programs}:$PATH" {line}', cwd=study)
    if extra == "stats":
        metrics = json.loads((study / "runs" / "bare" / "evaluate" / "metrics.json").read_text())
        assert "logistic" not in metrics["baselines_left_out"]
    if extra == "speed":
        assert "numba" in call(programs / "pip", "list", cwd=study).stdout


@pytest.mark.soak
def test_prices_of_yahoo(fresh: Callable[..., Path], study: Path, call: Callable) -> None:
    """With a network there are bars; without, one line says what the library said."""
    programs = fresh("prices")
    words = "prices fetch --tickers AMZN --start 2024-01-02 --end 2024-01-31 --set prices.provider=yfinance --json"
    done = call(programs / "finseek", *words.split(), cwd=study, code=None)
    assert "Traceback" not in done.stderr
    assert "not installed" not in done.stdout + done.stderr
    (outcome,) = json.loads(done.stdout)
    assert outcome["bars"] > 15 if done.returncode == 0 else "yfinance says" in outcome["message"]


@pytest.mark.soak
def test_unsloth_without_a_gpu_is_said_clearly(fresh: Callable[..., Path], study: Path, call: Callable) -> None:
    """Its pins exclude ours, so nothing is pinned here."""
    programs = fresh("unsloth", pinned=False)
    done = call(
        programs / "finseek", "train", "config.yaml", "--set", "train.engine=trl", "--set", "train.unsloth=true",
        "--set", "train.lora.rank=4", cwd=study, code=None,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Unsloth needs a GPU" in done.stderr
