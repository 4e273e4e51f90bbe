"""The wheel, installed as a user would: alone in a fresh environment, and with each extra.

Needs pip's index. Every version is the one of constraints.txt.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from finseek.market import generate_prices, write_prices
from finseek.theses.synthetic import generate_theses, write_theses_xml

ROOT = Path(__file__).parents[2]
CONFIG = """
run: {name: bare}
theses: {source: theses}
prices: {source: prices.parquet}
split: {train_end: 2022-06-30, test_start: 2022-07-01, validation_days: 40}
prompt: {vocab_size: 400}
"""
EXTRAS = {
    "train": "import torch, transformers, safetensors, lightning, peft",
    "stats": "import sklearn, arch",
    "speed": "import numba",
    "prices": "import yfinance",
    "tracking": "import wandb, tensorboard, mlflow",
    "nemo": "import nemo_automodel",
    "trl": "import trl, bitsandbytes, datasets",
    "docs": "import sphinx, furo, myst_parser",
}


def call(*command: object, cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT, cwd=folder)
    return next(folder.glob("finseek-*.whl"))


def fresh(folder: Path, wheel: Path, extra: str = "") -> Path:
    """A new environment with the wheel in it; its folder of programs."""
    venv.create(folder, with_pip=True)
    pip = (folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt")
    if extra in ("train", "nemo", "trl"):
        call(*pip, "torch", cwd=folder)
    call(*pip, f"{wheel}[{extra}]" if extra else wheel, cwd=folder)
    return folder / "bin"


@pytest.mark.system
def test_data_prices_backtest_statistics_and_report_work_without_extras(wheel: Path, tmp_path: Path) -> None:
    prices, planted = generate_prices(0, n_tickers=4, n_sessions=190)
    write_prices(prices, tmp_path / "prices.parquet")
    theses = generate_theses(planted.signal, prices.sessions, prices.tickers, seed=0).theses
    write_theses_xml(theses, tmp_path / "theses")
    rows = [f"{thesis.ticker},{thesis.as_of_date},{thesis.action}" for thesis in theses]
    (tmp_path / "signals.csv").write_text("\n".join(["ticker,as_of_date,action", *rows]))
    (tmp_path / "config.yaml").write_text(CONFIG)
    programs = fresh(tmp_path / "env", wheel)
    finseek = programs / "finseek"
    assert "torch" not in call(programs / "pip", "list", cwd=tmp_path)
    found = call(
        finseek, "theses", "parse", "theses", "--out", "a.jsonl", "--rejects", "r.jsonl", "--json", cwd=tmp_path
    )
    assert json.loads(found)["kept"] == len(theses)
    call(finseek, "prices", "check", "prices.parquet", "--set", "prices.calendar=24/5", cwd=tmp_path)
    call(finseek, "backtest", "--signals", "signals.csv", "--prices", "prices.parquet", "--out", "bt", cwd=tmp_path)
    assert (tmp_path / "bt" / "metrics.json").is_file()
    left_out = [word for stage in ("train", "evaluate", "backtest", "audit") for word in ("--skip", stage)]
    call(finseek, "run", "config.yaml", *left_out, cwd=tmp_path)
    call(finseek, "manifest", "verify", "runs/bare", cwd=tmp_path)
    assert (tmp_path / "runs" / "bare" / "report.html").is_file()
    call(programs / "python", "-c", "from finseek.stats import deflated_sharpe_ratio", cwd=tmp_path)
    asked = subprocess.run(
        [finseek, "train", "config.yaml", "--set", "model.preset=tiny"], cwd=tmp_path, capture_output=True, text=True
    )
    assert asked.returncode == 2
    assert asked.stderr.endswith("pip install 'finseek[train]'\n")


@pytest.mark.soak
@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_installs_and_brings_what_it_names(wheel: Path, tmp_path: Path, extra: str) -> None:
    programs = fresh(tmp_path / "env", wheel, extra)
    call(programs / "python", "-c", EXTRAS[extra], cwd=tmp_path)
    assert call(programs / "pip", "check", cwd=tmp_path).startswith("No broken requirements")
    states = {
        check["name"]: check["state"]
        for check in json.loads(call(programs / "finseek", "doctor", "--json", cwd=tmp_path))
    }
    assert states["python"] == "ok"
