"""The wheel, installed as a user would: alone in a fresh environment. Needs an index of packages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.system
def test_data_prices_backtest_statistics_and_report_work_without_extras(
    fresh: Callable[..., Path], study: Path, call: Callable
) -> None:
    programs = fresh()
    finseek = programs / "finseek"

    def run(*words: str, code: int = 0) -> str:
        return call(finseek, *words, cwd=study, code=code).stdout

    assert "torch" not in call(programs / "pip", "list", cwd=study).stdout
    found = json.loads(run("theses", "parse", "theses", "--out", "a.jsonl", "--rejects", "r.jsonl", "--json"))
    assert found["kept"] == len((study / "signals.csv").read_text().splitlines()) - 1
    run("prices", "check", "prices.parquet", "--set", "prices.calendar=24/5")
    run("backtest", "--signals", "signals.csv", "--prices", "prices.parquet", "--out", "bt")
    assert (study / "bt" / "metrics.json").is_file()
    run(
        "run",
        "config.yaml",
        *[word for stage in ("train", "evaluate", "backtest", "audit") for word in ("--skip", stage)],
    )
    run("manifest", "verify", "runs/bare")
    assert (study / "runs" / "bare" / "report.html").is_file()
    call(programs / "python", "-c", "from finseek.stats import deflated_sharpe_ratio", cwd=study)
    asked = call(finseek, "train", "config.yaml", cwd=study, code=2)
    assert asked.stderr.endswith("pip install 'finseek[train]'\n")
