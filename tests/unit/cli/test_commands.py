"""The command line in real processes: exit codes, one-line errors, where results and progress go."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_group

from finseek.audit.trials import verify_trials
from finseek.cli.main import app, flags_first, only

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
    written = {path.name for path in (files / "bt").iterdir()}
    assert written == {
        *("metrics.json", "equity.csv", "trades.csv", "ledger.csv", "fills.csv", "rejected.csv", "unexecuted.csv")
    }


def test_a_sweep_of_two_keys_ends_in_a_heat_map(files: Path) -> None:
    source = ["--signals", "signals.csv", "--prices", "prices.csv", "--out", "sweep"]
    keys = ["--sweep", "slippage=0,0.01", "--sweep", "backtest.limits.max_gross=[null,0.5]"]
    done = finseek("backtest", *source, *keys, cwd=files)
    assert done.returncode == 0, done.stderr
    assert "Sweep of 4 points" in done.stdout
    assert "Sharpe by limits.max_gross (down) and slippage (across)" in done.stdout
    lines = (files / "sweep" / "sweep.csv").read_text().splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("slippage,limits.max_gross,total_return")
    assert (files / "sweep" / "heat_map.csv").read_text().splitlines()[0] == "limits.max_gross,0.0,0.01"
    assert (files / "sweep" / "returns.csv").read_text().splitlines()[0] == "date,0,1,2,3"


def test_every_look_at_any_signals_is_a_trial(files: Path) -> None:
    source = ["backtest", "--signals", "signals.csv", "--prices", "prices.csv", "--out", "bt"]
    for _ in range(2):  # a replay is none
        done = finseek(*source, cwd=files)
        assert done.returncode == 0, done.stderr
        assert "trials on these test data: 1 (trials.jsonl)" in done.stdout
    swept = finseek(*source, "--sweep", "slippage=0,0.0005,0.001", cwd=files)  # the second is the one that was traded
    assert "trials on these test data: 3 (trials.jsonl)" in swept.stdout
    kinds = [(trial.kind, trial.sharpe is not None) for trial in verify_trials(files / "trials.jsonl")]
    assert kinds == [("backtest", True), ("sweep", True), ("sweep", True)]
    refused = finseek(*source, "--set", "evaluate.lock_test=true", "--set", "backtest.shorts=true", cwd=files)
    assert refused.returncode == 2
    assert "looked at in 3 trials" in refused.stderr


@pytest.mark.parametrize(
    ("sweep", "part"),
    [
        (["slippage"], "is not KEY=VALUES, as in --sweep slippage=0,0.001,0.002"),
        (["slippage="], "is not KEY=VALUES"),
        (["slippage=0", "slippage=0.1"], "names slippage twice"),
        (["slipage=0,0.1"], "no key 'slipage': the nearest is slippage"),
        (["slippage=0,1"], "backtest.slippage: Input should be less than 1"),
        (["slippage=[0,"], "no list of values"),
    ],
)
def test_a_wrong_sweep_is_one_line(files: Path, sweep: list[str], part: str) -> None:
    keys = [word for one in sweep for word in ("--sweep", one)]
    done = finseek("backtest", "--signals", "signals.csv", "--prices", "prices.csv", "--out", "s", *keys, cwd=files)
    assert (done.returncode, done.stdout) == (2, "")
    assert part in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (files / "s").exists()


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
    assert sorted(path.name for path in files.iterdir()) == ["prices.csv", "signals.csv"]


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


def test_a_call_that_names_a_command_builds_it_alone() -> None:
    every = get_group(app).commands
    for name, command in every.items():
        alone = get_group(only(["--quiet", "-v", name, "--help"])).commands
        assert list(alone) == [name]
        assert [parameter.opts for parameter in alone[name].params] == [parameter.opts for parameter in command.params]
    for words in ([], ["--help"], ["-h", "run"], ["--version"], ["rnu"], ["-qv", "run"]):
        assert get_group(only(words)).commands.keys() == every.keys()


def test_flags_of_finseek_count_wherever_they_stand(files: Path) -> None:
    assert flags_first(["run", "c.yaml", "-v", "--set", "a.b=1", "--debug"]) == [
        *("-v", "--debug", "run", "c.yaml", "--set", "a.b=1")
    ]
    assert flags_first(["run", "--", "-v"]) == ["run", "--", "-v"]
    done = finseek("run", "none.yaml", "--debug", cwd=files)
    assert "Traceback" in done.stderr
    assert "finseek init" in done.stderr


def test_a_new_study_says_what_comes_next_unless_quiet(tmp_path: Path) -> None:
    told = finseek("init", "study", cwd=tmp_path)
    assert told.stdout.splitlines() == ["study/config.yaml", "study/.env.example", "study/.gitignore"]
    assert "cd study && finseek run config.yaml --dry-run" in told.stderr
    assert finseek("init", "other", "--quiet", cwd=tmp_path).stderr == ""


def test_completion_knows_commands_and_options(tmp_path: Path) -> None:
    def completed(words: str, place: int) -> list[str]:
        asked = {"_FINSEEK_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
        command = [str(Path(sys.executable).with_name("finseek"))]
        done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=False)
        return done.stdout.split()

    assert completed("finseek the", 1) == ["theses"]
    assert completed("finseek run --f", 2) == ["--from"]


def test_nothing_is_coloured_where_nobody_wants_it(files: Path) -> None:
    """A pipe is no terminal; FORCE_COLOR makes it one, and NO_COLOR is stronger."""
    source = ["--signals", "signals.csv", "--prices", "prices.csv", "--out", "sweep"]
    keys = ["--sweep", "slippage=0,0.01", "--sweep", "hold=flat,keep"]
    colour = re.compile(r"\x1b\[[\d;]*[34]8;")
    forced = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    assert "\x1b" not in finseek("backtest", *source, *keys, cwd=files).stdout
    assert colour.search(finseek("backtest", *source, *keys, cwd=files, **forced).stdout)
    assert not colour.search(finseek("backtest", *source, *keys, cwd=files, **forced, NO_COLOR="1").stdout)
