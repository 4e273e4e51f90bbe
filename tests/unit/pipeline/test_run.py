"""One small run through every stage: what is run again and when, what the manifest sees, what a kill leaves."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finseek.audit.trials import verify_trials
from finseek.core.errors import ConfigError, FinseekError, InputError
from finseek.pipeline import load_config, run
from finseek.pipeline.lock import held
from finseek.pipeline.manifest import read_manifest, verify_manifest
from finseek.pipeline.run import plan_run
from finseek.pipeline.stages import STAGES

NAMES = [stage.name for stage in STAGES]
TIMES = ("seconds", "tokens_per_second", "mfu", "memory_gib", "mtime_ns")

DRIVER = """
import os, signal, sys, threading
from pathlib import Path
from finseek.pipeline import load_config, run
from finseek.pipeline.stages import Stage
config, victim, delay = sys.argv[1], sys.argv[2], float(sys.argv[3])
work = Stage.run
def killed_while_working(stage, context):
    if stage.name == victim:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    result = work(stage, context)
    if stage.name == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
Stage.run = killed_while_working
run(load_config(Path(config)))
"""


def statuses(config: Path, *assignments: str) -> dict[str, str]:
    return {outcome.name: outcome.status for outcome in run(load_config(config, assignments)).outcomes}


def timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in TIMES}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def contents(folder: Path) -> dict[str, object]:
    """Every artifact of a run; JSON lines of the training log without their time fields, the report left out.

    The report quotes the training time.
    """
    found: dict[str, object] = {}
    for name in read_manifest(folder / "manifest.json")["artifacts"]:
        if name.startswith("report"):
            continue
        data = (folder / name).read_bytes()
        found[name] = [timeless(json.loads(line)) for line in data.splitlines()] if "train_log" in name else data
    return found


def test_a_run_from_theses_to_a_verified_report(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "study"
    assert set(statuses(study).values()) == {"done"}
    assert list(verify_manifest(folder)) == []
    assert json.loads((folder / "state.json").read_text())["status"] == "done"

    before = (folder / "manifest.json").read_bytes()
    assert statuses(study) == dict.fromkeys(NAMES, "unchanged")
    assert (folder / "manifest.json").read_bytes() == before

    chain = tmp_path / "runs" / "trials.jsonl"
    assert len({trial.config for trial in verify_trials(chain)}) == 1

    again = statuses(study, "backtest.slippage=0.002")
    assert [name for name, status in again.items() if status == "done"] == ["backtest", "report"]
    assert len({trial.config for trial in verify_trials(chain)}) == 2
    assert verify_trials(chain)[-1].kind == "backtest"
    assert read_manifest(folder / "manifest.json")["trials"]["length"] == len(verify_trials(chain))
    with pytest.raises(InputError, match="lock_test is true"):
        run(load_config(study, ["evaluate.lock_test=true", "evaluate.batch_size=7"]))
    assert list(verify_manifest(folder)) == []

    for name in read_manifest(folder / "manifest.json")["artifacts"]:
        data = (folder / name).read_bytes()
        if data:
            (folder / name).write_bytes(data[:-1])
            assert [finding.path for finding in verify_manifest(folder)] == [name]
            (folder / name).write_bytes(data)

    (folder / "evaluate" / "metrics.json").unlink()
    plan = {step.name: step.status for step in plan_run(load_config(study), first=None, last=None, skip=())}
    assert plan["evaluate"] == "would run"
    assert plan["train"] == "unchanged"

    (folder / "train" / "checkpoint" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="stage evaluate needs stage train as this config would make it"):
        run(load_config(study), first="evaluate")


def test_what_another_config_made_is_never_taken_for_this_one(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "study"
    statuses(study)
    with pytest.raises(InputError, match="stage backtest needs stage train"):
        run(load_config(study, ["train.max_steps=7"]), first="backtest")
    run(load_config(study, ["backtest.transaction_cost=0.05"]), skip=("backtest",))
    assert not json.loads((folder / "report.json").read_text())["backtest"]["accounts"]
    assert not (folder / "backtest").exists()
    assert (folder / "stale" / "backtest" / "metrics.json").exists()
    assert list(verify_manifest(folder)) == []
    statuses(study, "prices.source=null", "split.purge=false")
    assert "backtest" not in read_manifest(folder / "manifest.json")["stages"]
    run(load_config(study, ["prompt.vocab_size=380"]), last="samples")
    assert not (folder / "report.html").exists()
    assert list(verify_manifest(folder)) == []


def test_copies_elsewhere_are_made_again(study: Path, tmp_path: Path) -> None:
    wanted = [f"theses.jsonl_output={tmp_path / 'all.jsonl'}", f"prompt.nemo_dataset_dir={tmp_path / 'nemo'}"]
    for _ in range(2):
        run(load_config(study, wanted), last="samples")
        assert (tmp_path / "nemo" / "training.jsonl").is_file()
        (tmp_path / "all.jsonl").unlink()
        shutil.rmtree(tmp_path / "nemo")


def test_sigkill_in_any_stage_and_starting_again_changes_nothing(study: Path, tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    statuses(study, f"run.output_dir={undisturbed}")
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    delays = random.Random(0)
    for victim in NAMES:
        delay = delays.uniform(0, 1.5 if victim == "train" else 0.05)
        command = [sys.executable, str(driver), str(study), victim, str(delay)]
        killed = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (tmp_path / "runs" / "study" / "manifest.json").exists()
    statuses(study)
    assert contents(tmp_path / "runs" / "study") == contents(undisturbed / "study")
    left = [path for path in (tmp_path / "runs").rglob("*") if path.name.endswith(".partial")]
    assert left == []


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["theses.source=nowhere"], "theses.source is nowhere, which does not exist"),
        (["prices.source=nowhere.parquet"], "prices.source is nowhere.parquet, which does not exist"),
        (["split.train_end=2021-01-01", "split.test_start=2021-01-02"], "train split holds no thesis"),
        (["split.train_end=2022-07-05"], "test_start 2022-07-01 is not after train_end"),
        (["model.preset=null"], "exactly one of preset"),
        (["model.overrides.hiden_size=32"], "model.overrides.hiden_size is no field .* hidden_size"),
        (["model.overrides.hidden_size=big"], "describes no model that can be built"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_manifest(
    study: Path, tmp_path: Path, assignments: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        run(load_config(study, assignments))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs" / "study" / "manifest.json").exists()


def test_an_empty_folder_and_a_missing_ticker(study: Path, market: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        run(load_config(study, [f"theses.source={tmp_path / 'empty'}"]))
    shutil.copytree(market / "theses", tmp_path / "more")
    stranger = (tmp_path / "more" / "S0_theses.xml").read_text().replace('ticker="S0"', 'ticker="ZZZ"')
    (tmp_path / "more" / "ZZZ_theses.xml").write_text(stranger)
    with pytest.raises(InputError, match="ZZZ"):
        run(load_config(study, [f"theses.source={tmp_path / 'more'}"]))


def test_stage_names_and_order_are_checked(study: Path) -> None:
    loaded = load_config(study)
    with pytest.raises(ConfigError, match="'traim' is no stage; the stages are theses, prices"):
        run(loaded, last="traim")
    with pytest.raises(ConfigError, match="nothing would run"):
        run(loaded, first="train", last="split")
    with pytest.raises(InputError, match="stage train needs stage theses"):
        run(loaded, first="train")


def test_two_runs_at_once_in_one_folder(study: Path, tmp_path: Path) -> None:
    with (
        held(tmp_path / "runs" / "study" / ".lock"),
        pytest.raises(FinseekError, match="in use by another finseek process"),
    ):
        run(load_config(study))


def test_without_prices_the_market_stages_are_left_out(study: Path) -> None:
    outcome = statuses(study, "prices.source=null", "split.purge=false")
    assert [name for name, status in outcome.items() if status == "left out"] == ["prices", "backtest"]


def test_a_model_card_is_of_a_trained_model(study: Path, tmp_path: Path) -> None:
    card = tmp_path / "runs" / "study" / "train" / "README.md"
    run(load_config(study), skip=("train", "evaluate", "backtest", "audit"))
    assert not card.exists()
    result = run(load_config(study), skip=("evaluate", "backtest", "audit"))
    assert card.exists()
    assert result.outcomes[-1].status == "done"


def test_while_it_runs_the_state_says_what_the_manifest_will_say(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "study"
    seen = []

    def look(label: str, done: float, total: float | None, unit: str) -> None:
        if label == "train" and not seen:
            seen.append(json.loads((folder / "state.json").read_text()))

    run(load_config(study), progress=look)
    (state,) = seen
    assert (state["status"], state["stage"]) == ("running", "train")
    manifest = read_manifest(folder / "manifest.json")
    for key in ("config", "overrides", "code", "environment"):
        assert state["run"][key] == manifest[key], key
    assert state["run"]["inputs"] == {name: record["sha256"] for name, record in manifest["inputs"].items()}
    assert {"git_commit", "git_dirty"} <= set(state["run"]["code"])
    assert {"gpus", "memory_bytes", "packages"} <= set(state["run"]["environment"])
    assert state["run"]["seeds"] == [manifest["config"]["run"]["seed"]]
    assert state["run"]["sha256"] == manifest["description_sha256"]
    assert "run" not in json.loads((folder / "state.json").read_text())


def test_the_page_names_every_file_with_its_hash_whatever_ran_again(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "study"
    statuses(study)
    page = (folder / "report.html").read_text()
    sealed = read_manifest(folder / "manifest.json")
    made = {name: file for name, file in sealed["artifacts"].items() if file["stage"] != "report"}
    assert {name.split("/")[0] for name in sealed["inputs"]} == {"theses.source", "prices.source"}
    for file in (*sealed["inputs"].values(), *made.values()):
        assert file["sha256"] in page
        assert f"{file['bytes']:,}" in page

    run(load_config(study), first="prices")
    assert list(json.loads((folder / "state.json").read_text())["stages"])[-1] == "prices"
    run(load_config(study), first="report")
    assert (folder / "report.html").read_text() == page
