"""``finseek evaluate --predictions`` in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finseek.audit.trials import verify_trials
from finseek.market import generate_prices, write_prices

HEAD = "ticker,as_of_date,gt_action,pred_action"


def finseek(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "finseek.cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={**os.environ}, capture_output=True, text=True, timeout=120)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    prices, _ = generate_prices(0, n_tickers=3, n_sessions=90)
    write_prices(prices, tmp_path / "prices.parquet")
    days = prices.sessions.dates[60:80]
    lines = [f"{ticker},{day},{('BUY', 'SELL')[i % 2]},BUY" for i, day in enumerate(days) for ticker in prices.tickers]
    (tmp_path / "mine.csv").write_text("\n".join([HEAD, *lines]) + "\n")
    return tmp_path


def given(name: str, *more: str) -> list[str]:
    fast = ["--set", "evaluate.bootstrap_resamples=100"]
    return ["evaluate", "--predictions", name, "--prices", "prices.parquet", "--out", "scores/a", *fast, *more]


def test_any_predictions_are_scored_and_every_look_is_a_trial(files: Path) -> None:
    done = finseek(*given("mine.csv", "--json"), cwd=files)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    assert metrics["classification"]["all"]["accuracy"]["value"] == 0.5
    assert {"persistence", "momentum", "reversal"} <= set(metrics["baselines"])
    assert metrics["baselines_left_out"]["logistic"] == "there are no labels to learn from"
    assert metrics["financial"]["1"]["rows"]["with_return"] == 60
    written = (files / "scores" / "a" / "metrics.json").read_bytes()

    lock = ("--set", "evaluate.lock_test=true")
    again = finseek(*given("mine.csv", *lock), cwd=files)
    assert again.returncode == 0, again.stderr
    assert "trials on these test data: 1" in again.stdout
    assert (files / "scores" / "a" / "metrics.json").read_bytes() == written

    (files / "mine.csv").write_text((files / "mine.csv").read_text().replace(",BUY\n", ",HOLD\n"))
    refused = finseek(*given("mine.csv", *lock), cwd=files)
    assert refused.returncode == 2
    assert "state why they are looked at again" in refused.stderr
    assert (files / "scores" / "a" / "metrics.json").read_bytes() == written
    told = finseek(*given("mine.csv", *lock, "--set", "evaluate.reason=a bug in my parser"), cwd=files)
    assert told.returncode == 0, told.stderr
    assert [trial.reason for trial in verify_trials(files / "scores" / "trials.jsonl")] == [None, "a bug in my parser"]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (f"{HEAD}\nZZZ,2022-03-28,BUY,BUY\n", "'ZZZ'"),
        (f"{HEAD}\nS0,2022-03-28,BUY,BUY\nS0,2022-03-28,BUY,BUY\n", "row 2: S0 as of 2022-03-28 is on row 1 already"),
        (f"{HEAD}\nS0,2022-03-28,BUY,I would not buy\n", "row 1: action 'I would not buy' is none of"),
        (HEAD.replace(",", ";"), "separated by semicolons"),
    ],
)
def test_a_broken_file_is_one_line_and_leaves_nothing(files: Path, content: str, part: str) -> None:
    (files / "bad.csv").write_text(content)
    before = sorted(files.rglob("*"))
    done = finseek(*given("bad.csv"), cwd=files)
    assert done.returncode == 2
    assert part in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(files.rglob("*")) == before
