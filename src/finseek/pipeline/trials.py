"""Every look at a test split goes into one hash-chained file beside the runs."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import msgspec

from finseek.audit.trials import Head, check_lock, head_of, record_trials, verify_trials
from finseek.backtest.sweep import SweepResult
from finseek.core.artifacts import read_json, sha256_json
from finseek.pipeline.config import Config
from finseek.pipeline.paths import RunPaths

SESSIONS_A_YEAR = 252
DECIDES = ("split", "prompt", "model", "train", "parallel", "evaluate", "backtest")
"""Sections that make one trial differ from another; where it is kept and how it is shown do not."""


def chain_file(config: Config) -> Path:
    """The chain of all runs below one output folder."""
    return config.run.output_dir / "trials.jsonl"


def test_data(paths: RunPaths) -> str:
    """Identity of a test split: the hash of its uids."""
    certificate = read_json(paths.split / "certificate.json")
    return str(certificate["splits"]["test"]["uids_sha256"])


def config_hash(config: Config) -> str:
    """Identity of what was tried."""
    parts = {section: config.part(section) for section in DECIDES}
    return sha256_json({**parts, "theses": config.part("theses"), "seed": config.run.seed})


def record_look(config: Config, paths: RunPaths, at: str, traded: bool) -> Head:
    """Append this run's look at its test split, with its Sharpe ratio where it was traded; a replay adds nothing.

    Args:
        config: of the run.
        paths: of the run.
        at: ISO time.
        traded: whether the run has a backtest.
    """
    sharpe = periods = None
    if traded:
        metrics = read_json(paths.backtest / "metrics.json")
        annual, periods = metrics["performance"]["sharpe"], metrics["window"]["sessions"]
        sharpe = None if annual is None else annual / sqrt(SESSIONS_A_YEAR)
    return record_trials(
        chain_file(config),
        [(config_hash(config), sharpe, periods)],
        kind="backtest" if traded else "evaluation",
        test_data=test_data(paths),
        at=at,
        reason=config.evaluate.reason,
    )


def record_sweep(config: Config, paths: RunPaths, found: SweepResult, at: str) -> Head:
    """Append every point of a sweep on this run's test split."""
    periods = len(found.returns)
    looks = []
    for options, annual in zip(found.options, found.metrics["sharpe"], strict=True):
        sharpe = None if annual is None else annual / sqrt(SESSIONS_A_YEAR)
        looks.append((config_hash(config.model_copy(update={"backtest": options})), sharpe, periods))
    return record_trials(
        chain_file(config), looks, kind="sweep", test_data=test_data(paths), at=at, reason=config.evaluate.reason
    )


def refuse_locked_look(config: Config, paths: RunPaths) -> None:
    """Refuse before the model is asked what ``evaluate.lock_test`` forbids.

    Raises:
        InputError: a second look at locked test data without a stated reason.
    """
    if config.evaluate.lock_test:
        check_lock(verify_trials(chain_file(config)), test_data(paths), [config_hash(config)], config.evaluate.reason)


def number_of_trials(config: Config, paths: RunPaths) -> int:
    """Trials on this test data so far, this run's included."""
    data = test_data(paths)
    known = {trial.config for trial in verify_trials(chain_file(config)) if trial.test_data == data}
    return len(known | {config_hash(config)})


def head(config: Config) -> dict[str, object]:
    """Length and last hash of the chain, for the manifest: a chain cut short later shows."""
    found: dict[str, object] = msgspec.to_builtins(head_of(verify_trials(chain_file(config))))
    return found
