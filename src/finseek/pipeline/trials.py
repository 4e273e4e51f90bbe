"""Every look at a test split goes into one hash-chained file beside the runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from finseek.audit.trials import Head, check_lock, deflate, head_of, record_trials, trials_on, verify_trials
from finseek.core.artifacts import read_json, sha256_file, sha256_json
from finseek.core.errors import InputError
from finseek.core.sessions import YEAR
from finseek.pipeline.config import Config
from finseek.pipeline.manifest import read_manifest
from finseek.pipeline.paths import RunPaths

if TYPE_CHECKING:
    from finseek.backtest import SweepResult

DECIDES = ("split", "instruct", "prompt", "model", "train", "parallel", "evaluate", "backtest")
"""Sections that make one trial differ from another; where it is kept and how it is shown do not."""
LOOKS: dict[str, Literal["evaluation", "backtest"]] = {"evaluate": "evaluation", "backtest": "backtest"}
"""Stages that look at the test split, and what the chain calls that."""


def chain_file(config: Config) -> Path:
    """The chain of all runs below one output folder."""
    return config.run.output_dir / "trials.jsonl"


def test_data(paths: RunPaths) -> str:
    """Identity of a test split: the hash of its uids, of instruction data that of its file."""
    if not (paths.split / "certificate.json").exists():
        return sha256_file(paths.samples / "test.jsonl")
    certificate = read_json(paths.split / "certificate.json")
    return str(certificate["splits"]["test"]["uids_sha256"])


def config_hash(config: Config) -> str:
    """Identity of what was tried."""
    parts = {section: config.part(section) for section in DECIDES}
    parts["evaluate"] = {key: value for key, value in parts["evaluate"].items() if key not in ("lock_test", "reason")}
    return sha256_json({**parts, "theses": config.part("theses"), "seed": config.run.seed})


def record_look(config: Config, paths: RunPaths, stage: str) -> None:
    """Append this run's look at its test split, as soon as a stage has looked; a replay adds nothing.

    A backtest adds its Sharpe ratio to the evaluation that it trades, in a line of its own; both are one trial.

    Args:
        config: of the run.
        paths: of the run.
        stage: the one that was done; all but those of ``LOOKS`` have not looked.
    """
    if stage not in LOOKS:
        return
    sharpe = periods = None
    if stage == "backtest":
        metrics = read_json(paths.backtest / "metrics.json")
        sharpe, periods = per_session(metrics["performance"]["sharpe"]), metrics["window"]["sessions"]
    record_trials(
        chain_file(config),
        [(config_hash(config), sharpe, periods)],
        kind=LOOKS[stage],
        test_data=test_data(paths),
        at=now(),
        reason=config.evaluate.reason,
    )


def record_sweep(config: Config, paths: RunPaths, found: SweepResult) -> Head:
    """Append every point of a sweep on this run's test split."""
    periods = len(found.returns)
    looks = []
    for options, annual in zip(found.options, found.metrics["sharpe"], strict=True):
        looks.append((config_hash(config.model_copy(update={"backtest": options})), per_session(annual), periods))
    return record_trials(
        chain_file(config), looks, kind="sweep", test_data=test_data(paths), at=now(), reason=config.evaluate.reason
    )


def per_session(annual: float | None) -> float | None:
    """A Sharpe ratio as the chain holds it, from that of a year."""
    return None if annual is None else annual / sqrt(YEAR)


def now() -> str:
    """The time of a look."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def refuse_locked_look(config: Config, paths: RunPaths, stage: str) -> None:
    """Refuse before a stage looks at the test split, or a sweep trades it, what ``evaluate.lock_test`` forbids.

    Raises:
        InputError: a second look at locked test data without a stated reason.
    """
    if config.evaluate.lock_test and stage in (*LOOKS, "sweep"):
        tried = "the points of a sweep" if stage == "sweep" else config_hash(config)
        check_lock(verify_trials(chain_file(config)), test_data(paths), [tried], config.evaluate.reason)


def all_looks(config: Config, paths: RunPaths) -> dict[str, float | None]:
    """The trials on this test data so far, this run's included, with their Sharpe ratios per session."""
    looks = trials_on(verify_trials(chain_file(config)), test_data(paths))
    looks.setdefault(config_hash(config), None)
    return looks


def deflated(looks: Mapping[str, float | None], equity: ArrayLike | None) -> dict[str, Any] | None:
    """What this run's Sharpe ratio is worth after so many looks; None where it did not trade or never varied."""
    if equity is None:
        return None
    from finseek.backtest.performance import returns_of

    try:
        return deflate(list(looks.values()), returns_of(np.asarray(equity, dtype=np.float64)))
    except InputError:
        return None


def recorded_heads(chain: Path) -> list[Head]:
    """Length and head of a chain as the manifests of the runs beside it state them.

    Raises:
        ArtifactError: a manifest was altered.
    """
    manifests = (read_manifest(path) for path in sorted(chain.parent.glob("*/manifest.json")))
    return [Head(**manifest["trials"]) for manifest in manifests if "trials" in manifest]


def head(config: Config) -> dict[str, object]:
    """Length and last hash of the chain, for the manifest: a chain cut short later shows."""
    found: dict[str, object] = msgspec.to_builtins(head_of(verify_trials(chain_file(config))))
    return found
