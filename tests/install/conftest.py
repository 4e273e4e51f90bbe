"""A wheel of this tree, environments with nothing but it, and data for its commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
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
prompt: {vocab_size: 400, answer_order: [action], instruction: ""}
model: {preset: tiny, overrides: {num_hidden_layers: 2}}
train: {max_steps: 2, global_batch_size: 4, micro_batch_size: 4, seq_length: 256}
evaluate: {bootstrap_resamples: 100}
"""

Call = Callable[..., "subprocess.CompletedProcess[str]"]


def call_it(*command: object, cwd: Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run a command that sees no other finseek; its exit code must be the one given, None allows any."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True, timeout=1800)
    assert code in (None, done.returncode), f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def call() -> Call:
    return call_it


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    call_it(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT, cwd=folder)
    return next(folder.glob("finseek-*.whl"))


@pytest.fixture
def fresh(tmp_path: Path, wheel: Path) -> Iterator[Callable[..., Path]]:
    """A new environment with the wheel and some of its extras; its folder of programs."""

    def make(*extras: str, pinned: bool = True) -> Path:
        venv.create(tmp_path / "env", with_pip=True)
        pip = [tmp_path / "env" / "bin" / "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
        if pinned:
            pip += ["-c", ROOT / "constraints.txt"]
        if {"train", "nemo", "trl"} & set(extras):
            call_it(*pip, "torch", cwd=tmp_path)  # first and alone, as make does it
        call_it(*pip, f"{wheel}[{','.join(extras)}]" if extras else wheel, cwd=tmp_path)
        return tmp_path / "env" / "bin"

    yield make
    shutil.rmtree(tmp_path / "env")  # gigabytes


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with theses, prices, signals of the theses, and a config on them."""
    prices, planted = generate_prices(0, n_tickers=4, n_sessions=190)
    write_prices(prices, tmp_path / "prices.parquet")
    theses = generate_theses(planted.signal, prices.sessions, prices.tickers, seed=0).theses
    write_theses_xml(theses, tmp_path / "theses")
    rows = [f"{thesis.ticker},{thesis.as_of_date},{thesis.action}" for thesis in theses]
    (tmp_path / "signals.csv").write_text("\n".join(["ticker,as_of_date,action", *rows]))
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path
