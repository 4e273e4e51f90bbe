"""The evaluate stage of a small run: what it scores beside, what it asks again, what a lock forbids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finseek.audit.trials import verify_trials
from finseek.core.errors import ArtifactError, InputError
from finseek.pipeline import load_config, run
from finseek.pipeline.trials import all_looks, deflated, recorded_heads


def evaluated(study: Path, *assignments: str) -> dict:
    result = run(load_config(study, assignments), last="evaluate")
    return json.loads((result.paths.evaluate / "metrics.json").read_text())


def test_a_replay_asks_nobody_and_writes_the_same_bytes(study: Path, tmp_path: Path) -> None:
    metrics = evaluated(study)
    folder = tmp_path / "runs" / "study"
    kept = (folder / "cache" / "answers.jsonl").read_bytes()
    files = {name: (folder / "evaluate" / name).read_bytes() for name in ("metrics.json", "eval_results.csv")}
    assert metrics["usage"]["answers"] == metrics["rows"]["total"] == kept.count(b"\n")
    run(load_config(study), first="evaluate", last="evaluate")
    assert {name: (folder / "evaluate" / name).read_bytes() for name in files} == files
    assert (folder / "cache" / "answers.jsonl").read_bytes() == kept


def test_every_baseline_stands_beside_the_model_or_says_why_not(study: Path) -> None:
    metrics = evaluated(study)
    names = {"majority", "persistence", "random", "momentum", "reversal", "logistic", "gradient_boosting", "teacher"}
    named = set(metrics["baselines"]) | set(metrics["baselines_left_out"])
    assert named == names | {"base"}
    assert "random weights" in metrics["baselines_left_out"]["base"]
    for found in metrics["baselines"].values():
        assert set(found["difference"]) == {"accuracy", "macro_f1", "hit_rate", "mean_return"}
        assert found["difference"]["accuracy"]["low"] <= found["difference"]["accuracy"]["high"]
    teacher = metrics["baselines"]["teacher"]
    assert teacher["accuracy"]["value"] == 1
    mine = metrics["classification"]["all"]["accuracy"]["value"]
    assert teacher["difference"]["accuracy"]["value"] == pytest.approx(mine - 1)
    hit = metrics["financial"]["1"]["hit_rate"]["value"]
    assert hit is None or teacher["difference"]["hit_rate"]["value"] == pytest.approx(
        hit - teacher["hit_rate"]["value"]
    )


def test_a_tuned_checkpoint_is_compared_with_the_one_it_began_with(study: Path, tmp_path: Path) -> None:
    first = run(load_config(study), last="train").paths.train / "checkpoint"
    again = ["run.name=tuned", "model.preset=null", "model.overrides={}", f"model.path={first}"]
    metrics = evaluated(study, *again, f"prompt.tokenizer={first}", "train.max_steps=3")
    base = metrics["baselines"]["base"]
    assert base["answered"] == metrics["rows"]["total"]
    before = evaluated(study)["classification"]["all"]["accuracy"]["value"]
    assert base["accuracy"]["value"] == pytest.approx(before)


def test_several_draws_tell_how_sure_the_model_is(study: Path) -> None:
    sampled = ["mode=generate", "temperature=1.2", "draws=3", "max_new_tokens=12"]
    metrics = evaluated(study, *(f"evaluate.{one}" for one in sampled))
    assert metrics["draws"]["draws"] == 3
    assert 1 / 3 <= metrics["draws"]["agreement"] <= 1
    assert metrics["usage"]["answers"] == 3 * metrics["rows"]["total"]
    assert metrics["text"]["rows"] == metrics["rows"]["total"]


def test_a_locked_test_is_looked_at_again_only_for_a_reason(study: Path, tmp_path: Path) -> None:
    chain = tmp_path / "runs" / "trials.jsonl"
    lock = "evaluate.lock_test=true"
    run(load_config(study, [lock]))
    run(load_config(study, [lock]), first="evaluate")  # a replay is no second look
    assert len({trial.config for trial in verify_trials(chain)}) == 1
    for change in ("evaluate.batch_size=7", "backtest.slippage=0.002", "train.max_steps=5"):
        with pytest.raises(InputError, match="lock_test is true: state why"):
            run(load_config(study, [lock, change]))
    assert len({trial.config for trial in verify_trials(chain)}) == 1
    run(load_config(study, [lock, "backtest.slippage=0.002", "evaluate.reason=the broker charges more"]))
    assert verify_trials(chain)[-1].reason == "the broker charges more"
    assert len({trial.config for trial in verify_trials(chain)}) == 2


def test_a_chain_cut_short_together_with_its_head_does_not_fit_the_manifest(study: Path, tmp_path: Path) -> None:
    chain = tmp_path / "runs" / "trials.jsonl"
    run(load_config(study))
    run(load_config(study, ["backtest.slippage=0.002"]))
    verify_trials(chain, recorded_heads(chain))
    lines = chain.read_text().splitlines(keepends=True)
    chain.write_text("".join(lines[:-1]))
    last = json.loads(lines[-2])
    chain.with_suffix(".head.json").write_text(json.dumps({"length": last["number"], "head": last["hash"]}))
    verify_trials(chain)
    with pytest.raises(ArtifactError, match="removed at the end"):
        verify_trials(chain, recorded_heads(chain))


def test_the_number_of_looks_deflates_the_sharpe_ratio_of_a_run(study: Path) -> None:
    loaded = load_config(study, ["backtest.slippage=0.0006"])
    paths = run(load_config(study)).paths
    run(loaded)
    looks = all_looks(loaded.config, paths)
    assert len(looks) == 2
    equity = 100 * np.cumprod(1 + np.random.default_rng(0).normal(0.001, 0.01, 80))
    two, one = (deflated(known, equity) for known in (looks, {"this": None}))
    assert two is not None
    assert one is not None
    assert (two["trials"], one["trials"]) == (2, 1)
    assert 0 < two["deflated_sharpe_ratio"] < one["deflated_sharpe_ratio"] < 1
    assert deflated(looks, np.full(80, 100.0)) is None
    assert json.loads(paths.report_json.read_text())["trials"] == 2


def test_sessions_inside_the_knowledge_of_a_checkpoint_are_reported_apart(study: Path) -> None:
    first = run(load_config(study), last="train").paths.train / "checkpoint"
    again = ["run.name=tuned", "model.preset=null", "model.overrides={}", f"model.path={first}", "train.max_steps=2"]
    paths = run(load_config(study, [*again, "model.knowledge_cutoff=2022-07-20"]), last="audit").paths
    found = json.loads((paths.audit / "contamination.json").read_text())
    assert found["status"] == "caution"
    assert {name: part["rows"]["total"] for name, part in found["parts"].items()} == {
        name: found[name] for name in ("inside", "after")
    }
    assert found["parts"]["inside"]["rows"]["last"] <= "2022-07-20" < found["parts"]["after"]["rows"]["first"]
    assert "sessions after it" in found["summary"]
