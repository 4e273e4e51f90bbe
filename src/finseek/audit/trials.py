"""Every look at a test split, in a chain that shows when a line was edited, removed or moved.

A trial is a distinct pair of test-data hash and config hash: a replay is none, each point of a sweep is one, and an
evaluation is one even without returns. A line of trials.jsonl holds its number, its content, the hash of the line
before it and its own hash; a small file beside it holds length and head of the chain, as does the manifest of each
run, so that removed last lines show too.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
from numpy.typing import ArrayLike

from finseek.core.artifacts import sha256_json, write_json
from finseek.core.errors import ArtifactError, InputError
from finseek.core.sessions import YEAR
from finseek.stats import (
    deflated_sharpe_ratio,
    expected_maximum_sharpe,
    minimum_backtest_length,
    minimum_track_record_length,
    moments,
    probabilistic_sharpe_ratio,
    trial_variance,
)

GENESIS = "0" * 64


class Trial(msgspec.Struct, frozen=True):
    """One look at a test split.

    Attributes:
        number: place in the chain, from 1.
        kind: what looked.
        test_data: hash of the test data.
        config: hash of the config part that decided the result.
        sharpe: Sharpe ratio per session of the strategy; None without returns.
        periods: sessions behind it.
        at: when, ISO time.
        reason: why the test was looked at again, where it was locked.
        previous: hash of the line before; 64 zeros in the first.
        hash: SHA-256 of the canonical JSON of all the above.
    """

    number: int
    kind: Literal["evaluation", "backtest", "sweep"]
    test_data: str
    config: str
    sharpe: float | None
    periods: int | None
    at: str
    reason: str | None
    previous: str
    hash: str = ""


class Head(msgspec.Struct, frozen=True):
    """Length and last hash of a chain."""

    length: int
    head: str


def head_of(trials: Sequence[Trial]) -> Head:
    """Length and head of a chain."""
    return Head(len(trials), trials[-1].hash if trials else GENESIS)


def _hash(trial: Trial) -> str:
    content = msgspec.to_builtins(trial)
    del content["hash"]
    return sha256_json(content)


def head_file(path: Path) -> Path:
    """The file beside a chain that holds its length and head."""
    return path.with_suffix(".head.json")


def verify_trials(path: Path, expected: Sequence[Head] = ()) -> list[Trial]:
    """Read a chain and prove it whole; an absent file is an empty chain if nothing was expected of it.

    Args:
        path: trials.jsonl.
        expected: lengths and heads that were recorded elsewhere (manifests); the file beside the chain is one more.

    Raises:
        ArtifactError: the first line that was edited, removed or moved, or lines missing at the end.
    """
    trials: list[Trial] = []
    previous = GENESIS
    decode = msgspec.json.Decoder(Trial).decode
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    if lines[-1]:
        raise ArtifactError(f"{path} ends in half a line ({len(lines)}): restore the file from a backup")
    for number, line in enumerate(lines[:-1], 1):
        try:
            trial = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{path}:{number} is no trial ({error}): the chain was altered") from None
        if trial.number != number or trial.previous != previous:
            raise ArtifactError(f"{path}:{number} does not follow the line before it: a line was removed or moved")
        if trial.hash != _hash(trial):
            raise ArtifactError(f"{path}:{number} does not have the hash of its content: the line was edited")
        trials.append(trial)
        previous = trial.hash
    beside = head_file(path)
    recorded = [*expected]
    if beside.exists():
        try:
            recorded.append(msgspec.json.decode(beside.read_bytes(), type=Head))
        except msgspec.DecodeError as error:
            raise ArtifactError(f"{beside} is no head of a chain ({error}): it was altered") from None
    elif trials:
        raise ArtifactError(f"{beside} is missing: it holds the length of the chain, which cannot be proved without it")
    for head in recorded:
        if head.length > len(trials):
            raise ArtifactError(
                f"{path} holds {len(trials)} trials where {head.length} were recorded: lines were removed at the end"
            )
        if head_of(trials[: head.length]) != head:
            raise ArtifactError(f"{path}:{head.length} is another trial than the one recorded: the chain was rewritten")
    return trials


def record_trials(
    path: Path,
    looks: Sequence[tuple[str, float | None, int | None]],
    *,
    kind: Literal["evaluation", "backtest", "sweep"],
    test_data: str,
    at: str,
    reason: str | None = None,
    locked: bool = False,
) -> Head:
    """Append looks at a test split that are not in the chain yet; return its length and head.

    A config that was only evaluated gets a second line when it is traded; both lines are one trial.

    Args:
        path: trials.jsonl, made where it is absent.
        looks: config hash, Sharpe ratio per session or None, sessions or None, of each look.
        kind: what looked.
        test_data: hash of the test data.
        at: ISO time.
        reason: why, if the test was looked at before.
        locked: refuse another config on test data that the chain knows, unless there is a reason.

    Raises:
        ArtifactError: the chain is not whole.
        InputError: a second look at locked test data without a reason.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        trials = verify_trials(path)
        if locked:
            check_lock(trials, test_data, [config for config, _, _ in looks], reason)
        traded = {trial.config: trial.sharpe is not None for trial in trials if trial.test_data == test_data}
        fresh: list[Trial] = []
        for config, sharpe, periods in looks:
            if config in traded and (traded[config] or sharpe is None):
                continue
            traded[config] = sharpe is not None
            before = head_of([*trials, *fresh])
            trial = Trial(before.length + 1, kind, test_data, config, sharpe, periods, at, reason, before.head)
            fresh.append(msgspec.structs.replace(trial, hash=_hash(trial)))
        with path.open("ab") as chain:
            chain.write(b"".join(msgspec.json.encode(trial) + b"\n" for trial in fresh))
            chain.flush()
            os.fsync(chain.fileno())
        head = head_of([*trials, *fresh])
        write_json(head_file(path), msgspec.to_builtins(head))
    return head


def check_lock(trials: Sequence[Trial], test_data: str, configs: Sequence[str], reason: str | None) -> None:
    """Refuse a second look at locked test data; to be asked before the work as well as when it is recorded.

    Raises:
        InputError: the chain knows these data under other configs, and no reason is stated.
    """
    known = {trial.config for trial in trials if trial.test_data == test_data}
    if known and not (reason or "").strip() and not known.issuperset(configs):
        raise InputError(
            f"the test data were looked at in {len(known)} trials and evaluate.lock_test is true: "
            "state why they are looked at again (evaluate.reason), which is recorded"
        )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a chain, so that two runs that end at once both get their lines in."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def trials_on(trials: Sequence[Trial], test_data: str) -> dict[str, float | None]:
    """The distinct configs that looked at these test data, with their Sharpe ratio per session where they traded."""
    found: dict[str, float | None] = {}
    for trial in trials:
        if trial.test_data == test_data:
            found[trial.config] = trial.sharpe if trial.sharpe is not None else found.get(trial.config)
    return found


def deflate(sharpes: Sequence[float | None], returns: ArrayLike) -> dict[str, Any]:
    """What a strategy's Sharpe ratio is worth after all looks at its test data.

    Args:
        sharpes: of all trials on these data, the strategy's own included, per session; None without returns.
        returns: (T,) of the strategy, per session.

    Returns:
        Sharpe ratio per session and its moments, number of trials, V, E[max], PSR(0), DSR, the smallest track record
        (sessions) that would prove the Sharpe ratio, and the smallest backtest (years) for so many trials.

    Raises:
        InputError: the returns are fewer than two, or do not vary.
    """
    own = moments(returns)
    shape = {"skewness": own.skewness, "kurtosis": own.kurtosis}
    n = max(len(sharpes), 1)
    variance = trial_variance(sharpes, own.periods)
    return {
        "sharpe": own.sharpe,
        "sharpe_annual": own.sharpe * YEAR**0.5,
        "periods": own.periods,
        **shape,
        "trials": n,
        "trials_variance": variance,
        "expected_maximum_sharpe": expected_maximum_sharpe(n, variance),
        "probabilistic_sharpe_ratio": probabilistic_sharpe_ratio(own.sharpe, own.periods, **shape),
        "deflated_sharpe_ratio": deflated_sharpe_ratio(own.sharpe, own.periods, n, variance, **shape),
        "minimum_track_record_length": minimum_track_record_length(own.sharpe, **shape),
        "minimum_backtest_length_years": minimum_backtest_length(n),
    }
