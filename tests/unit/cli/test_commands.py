"""The command line in real processes: exit codes, one-line errors, where results and progress go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SIGNALS = "ticker,as_of_date,action\nAAA,2024-01-02,BUY\nAAA,2024-01-03,HOLD\n"
PRICES = """date,ticker,open,high,low,close,adjusted_close,volume
2024-01-02,AAA,10,11,9,10,10,1000
2024-01-03,AAA,10,12,10,11,11,1000
2024-01-04,AAA,11,12,10,12,12,1000
"""


def finseek(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "finseek.cli.main", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "signals.csv").write_text(SIGNALS)
    (tmp_path / "prices.csv").write_text(PRICES)
    return tmp_path


def test_any_signals_on_any_prices(files: Path) -> None:
    done = finseek(
        "backtest", "--signals", "signals.csv", "--prices", "prices.csv", "--out", "bt", "--json",
        "--set", "backtest.transaction_cost=0", "--set", "backtest.slippage=0", cwd=files,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)
    # bought at the open of 01-03 (10), held over its close (11), sold at the open of 01-04 (11)
    assert metrics["performance"]["final_equity"] == pytest.approx(110_000)
    assert sorted(path.name for path in (files / "bt").iterdir()) == ["equity.csv", "metrics.json", "trades.csv"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["run", "absent.yaml"], "config absent.yaml does not exist"),
        (["backtest", "--signals", "absent.csv", "--prices", "prices.csv", "--out", "bt"], "absent.csv"),
        (["backtest", "--signals", "signals.csv"], "give either CONFIG, or all of"),
        (["backtest"], "give either CONFIG, or all of"),
        (["manifest", "verify", "."], "manifest.json does not exist"),
        (["theses", "parse", "absent", "--out", "a", "--rejects", "b"], "absent"),
        (["prices", "import", "absent.csv", "--out", "x.parquet"], "absent.csv does not exist"),
        (["init", "."], "not an empty folder"),
    ],
)
def test_wrong_input_is_one_line_on_standard_error_and_exit_2(files: Path, arguments: list[str], part: str) -> None:
    before = sorted(files.rglob("*"))
    done = finseek(*arguments, cwd=files)
    assert done.returncode == 2
    assert done.stdout == ""
    assert part in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(files.rglob("*")) == before


def test_debug_shows_the_traceback(files: Path) -> None:
    assert "Traceback" in finseek("--debug", "run", "absent.yaml", cwd=files).stderr


def test_an_altered_artifact_is_exit_1(files: Path) -> None:
    from finseek.core.artifacts import sha256_file
    from finseek.pipeline.manifest import write_manifest

    run = files / "run"
    run.mkdir()
    (run / "prices.csv").write_text(PRICES)
    record = {"sha256": sha256_file(run / "prices.csv"), "bytes": len(PRICES)}
    write_manifest(run / "manifest.json", {"artifacts": {"prices.csv": record}, "inputs": {}})
    assert finseek("manifest", "verify", "run", cwd=files).returncode == 0
    (run / "prices.csv").write_text(PRICES.replace("12", "13"))
    done = finseek("manifest", "verify", "run", "--json", cwd=files)
    assert done.returncode == 1
    assert [finding["path"] for finding in json.loads(done.stdout)] == ["prices.csv"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["theses", "parse", "signals.csv", "--out", "x", "--rejects", "x"],
        ["prices", "import", "prices.csv", "--out", "."],
        ["backtest", "--signals", "signals.csv", "--prices", "prices.csv", "--out", "prices.csv"],
    ],
)
def test_an_output_that_cannot_be_written_is_one_line(files: Path, arguments: list[str]) -> None:
    done = finseek(*arguments, cwd=files)
    assert done.returncode in (1, 2)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_the_schema_and_the_doctor_speak_json(files: Path) -> None:
    schema = json.loads(finseek("schema", cwd=files).stdout)
    assert {"theses", "prices", "split", "backtest"} <= set(schema["properties"])
    checks = {check["name"]: check for check in json.loads(finseek("doctor", "--json", cwd=files).stdout)}
    assert checks["python"]["state"] == "ok"
    assert checks["torch"]["state"] == "ok"


def test_a_secret_in_dotenv_is_seen_but_never_shown(files: Path) -> None:
    (files / ".env").write_text("EODHD_API_KEY=hunter2\n")
    done = finseek("doctor", "--json", cwd=files)
    assert {c["name"]: c["state"] for c in json.loads(done.stdout)}["EODHD_API_KEY"] == "ok"
    assert "hunter2" not in done.stdout + done.stderr


def test_a_new_study_has_a_config_that_is_valid(tmp_path: Path) -> None:
    done = finseek("init", "study", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    dry = finseek("run", "config.yaml", "--dry-run", "--json", cwd=tmp_path / "study")
    assert dry.returncode == 2
    assert "prices.source is data/prices.parquet, which does not exist" in dry.stderr
