"""Each extra in an environment of its own: its libraries come, fit each other, and do the work that they are for.

Every version is the one of constraints.txt. Needs an index of packages, an hour, and some gigabytes.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.samples import Encoder, train_tokenizer

ROOT = Path(__file__).parents[2]
TRAIN = "finseek run config.yaml --smoke"
ADAPTER = (
    "--set run.name=adapter --set train.lora.rank=4 --set model.preset=null --set model.overrides={}"
    " --set model.path=runs/bare-smoke/train/checkpoint"
)
UNIT = f"-c {ROOT / 'pyproject.toml'} {ROOT / 'tests/unit/core'}"
BASELINE = """
import numpy as np
from finseek.core.actions import ACTIONS
from finseek.evaluate.learned import learned
from finseek.stats import superior_predictive_ability
x = np.random.default_rng(0).normal(size=(200, 2))
labels = [ACTIONS[int(row[0] > 0)] for row in x]
for kind in ("logistic", "gradient_boosting"):
    assert sum(a == b for a, b in zip(learned(kind, x, labels, x, seed=0), labels)) > 190
assert 0 <= superior_predictive_ability(x[:, 0], x, n_resamples=50) <= 1
"""

WORK = {
    "stats": (("stats",), [f"python -c '{BASELINE}'"]),
    "speed": (
        ("speed",),
        ["finseek backtest --signals signals.csv --prices prices.parquet --out bt"
         " --sweep slippage=" + ",".join(f"{i / 10_000}" for i in range(200))],
    ),
    "test": (("test",), [f"python -m pytest -q -p no:cacheprovider {UNIT}"]),
    "train": (("train",), [TRAIN, f"{TRAIN} {ADAPTER}"]),
    "tracking": (
        ("train", "tracking"),
        [f"{TRAIN} --until train --set tracking.tensorboard=true --set tracking.wandb=true --set tracking.mlflow=true"
         " --set tracking.offline=true"],
    ),
    "nemo": (("nemo",), [f"{TRAIN} --set train.engine=automodel"]),
    "trl": (
        ("trl",),
        [f"{TRAIN} --set train.engine=trl",
         "finseek samples export runs/bare-smoke hub --format huggingface"],
    ),
    "docs": (("train", "docs"), [f"python -m sphinx -W -q -b html {ROOT / 'docs'} html"]),
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
    train_tokenizer(["BUY HOLD SELL"], 400, study / "base")
    size = Encoder(study / "base").vocab_size
    DeepSeekV3(DeepSeekConfig.preset("tiny", vocab_size=size, num_hidden_layers=2)).save_pretrained(study / "base")
    adapter = ADAPTER.replace("runs/bare-smoke/train/checkpoint", "base")
    line = f"{TRAIN} --set train.engine=trl --set train.unsloth=true {adapter}"
    done = call("bash", "-c", f'PATH="{programs}:$PATH" {line}', cwd=study, code=2)
    assert "Traceback" not in done.stderr
    assert "Unsloth needs a GPU" in done.stderr
