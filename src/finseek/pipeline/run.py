"""Run the stages of a config in order, skipping what is still valid, and seal the run with its manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finseek.core.artifacts import remove_partials, sha256_file
from finseek.core.errors import ConfigError, InputError
from finseek.core.progress import Progress, silent
from finseek.pipeline import cache, manifest, trials
from finseek.pipeline.config import Config, LoadedConfig
from finseek.pipeline.lock import held
from finseek.pipeline.paths import RunPaths
from finseek.pipeline.stages import STAGES, Stage, StageContext

Say = Callable[[str], None]


@dataclass(frozen=True)
class StageOutcome:
    """What became of one stage: ``done``, ``unchanged`` or ``left out`` (with the reason)."""

    name: str
    status: str
    counts: dict[str, Any]
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    config: Config
    paths: RunPaths
    outcomes: tuple[StageOutcome, ...]


def select_stages(first: str | None, last: str | None, skip: Collection[str]) -> tuple[Stage, ...]:
    """The stages from ``first`` to ``last`` without the skipped ones.

    Raises:
        ConfigError: for a name that is no stage, or a range that is empty.
    """
    names = [stage.name for stage in STAGES]
    for name in (first, last, *skip):
        if name is not None and name not in names:
            raise ConfigError(f"{name!r} is no stage; the stages are {', '.join(names)}")
    begin = names.index(first) if first else 0
    end = names.index(last) if last else len(names) - 1
    if begin > end:
        raise ConfigError(f"--from {first} comes after --until {last}: nothing would run")
    return tuple(stage for stage in STAGES[begin : end + 1] if stage.name not in skip)


def external_inputs(stage: Stage, config: Config) -> dict[str, Path]:
    """The files outside the run folder that a stage reads, by a name that does not depend on the machine."""
    files: dict[str, Path] = {}
    for label, source in stage.sources(config).items():
        if not source.exists():
            raise InputError(f"{label} is {source}, which does not exist: correct the path")
        if source.is_file():
            files[f"{label}/{source.name}"] = source
        else:
            for file in sorted(path for path in source.rglob("*") if path.is_file()):
                files[f"{label}/{file.relative_to(source).as_posix()}"] = file
    return files


def run(
    loaded: LoadedConfig,
    *,
    first: str | None = None,
    last: str | None = None,
    skip: Collection[str] = (),
    progress: Progress = silent,
    say: Say = lambda line: None,
) -> RunResult:
    """Run the stages of a config.

    A stage whose code, config part and input hashes are unchanged is not run again. ``first`` runs again even so.

    Args:
        loaded: from :func:`finseek.pipeline.load_config`.
        first: stage to begin with; the ones before it must have been done.
        last: stage to end with.
        skip: stages to leave out.
        progress: told where long work stands.
        say: told one line for each stage.

    Raises:
        FinseekError: whatever a stage refuses; ``state.json`` then says *failed* and where.
    """
    config = loaded.config
    paths = RunPaths(config.run.output_dir / config.run.name)
    chosen = select_stages(first, last, skip)
    _check(chosen, config)
    with held(paths.lock):
        remove_partials(paths.root)
        state = cache.RunState(paths.state)
        try:
            outcomes = tuple(_run_stages(config, paths, state, chosen, first, progress, say))
        except BaseException:
            state.close("failed")
            raise
        looked = {outcome.name for outcome in outcomes if outcome.status == "done"} & {"evaluate", "backtest"}
        if looked:
            trials.record_look(config, paths, datetime.now(UTC).isoformat(timespec="seconds"))
        if not paths.manifest.exists():
            _seal(loaded, paths, state)
        state.close("done")
    return RunResult(config, paths, outcomes)


def plan_run(loaded: LoadedConfig, *, first: str | None, last: str | None, skip: Collection[str]) -> list[StageOutcome]:
    """What :func:`run` would do, without doing it."""
    config = loaded.config
    paths = RunPaths(config.run.output_dir / config.run.name)
    state = cache.RunState(paths.state)
    plan = []
    stale: set[str] = set()
    chosen = select_stages(first, last, skip)
    _check(chosen, config)
    for stage in chosen:
        reason = stage.absent(config)
        if reason:
            plan.append(StageOutcome(stage.name, "left out", {}, 0.0, reason))
            continue
        stands = not stale & set(stage.needs) and _stands(stage, _inputs(stage, config, state), config, paths, state)
        if stage.name == first or not stands:
            stale.add(stage.name)
        plan.append(StageOutcome(stage.name, "would run" if stage.name in stale else "unchanged", {}, 0.0))
    return plan


def _check(chosen: Iterable[Stage], config: Config) -> None:
    """Refuse before any work what a chosen stage would refuse later: its part of the config, a missing source."""
    for stage in chosen:
        if not stage.absent(config):
            stage.check(config)
            external_inputs(stage, config)


def _inputs(stage: Stage, config: Config, state: cache.RunState) -> dict[str, str]:
    """SHA-256 of everything that a stage reads: files from outside and outputs of earlier stages."""
    hashes = {name: sha256_file(path) for name, path in external_inputs(stage, config).items()}
    for needed in stage.needs:
        for name, record in state.stages.get(needed, {"outputs": {}})["outputs"].items():
            hashes[name] = record["sha256"]
    return hashes


def _key(stage: Stage, inputs: dict[str, str], config: Config) -> str:
    part = {section: config.part(section) for section in stage.sections}
    return cache.stage_key(stage.name, cache.code_hash(stage.code), {**part, "seed": config.run.seed}, inputs)


def _stands(stage: Stage, inputs: dict[str, str], config: Config, paths: RunPaths, state: cache.RunState) -> bool:
    """Whether what a stage made before is still what it would make now."""
    record = state.stages.get(stage.name)
    return (
        record is not None
        and record["key"] == _key(stage, inputs, config)
        and cache.unchanged(paths.root, record["outputs"])
    )


def _run_stages(
    config: Config,
    paths: RunPaths,
    state: cache.RunState,
    chosen: tuple[Stage, ...],
    first: str | None,
    progress: Progress,
    say: Say,
) -> Iterator[StageOutcome]:
    for stage in chosen:
        reason = stage.absent(config)
        if reason:
            say(f"{stage.name}: left out, {reason}")
            yield StageOutcome(stage.name, "left out", {}, 0.0, reason)
            continue
        for needed in stage.needs:
            _require(needed, stage, config, paths, state)
        inputs = _inputs(stage, config, state)
        if stage.name != first and _stands(stage, inputs, config, paths, state):
            record = state.stages[stage.name]
            say(f"{stage.name}: unchanged")
            yield StageOutcome(stage.name, "unchanged", record["counts"], record["seconds"])
            continue
        key = _key(stage, inputs, config)
        if stage.name == "evaluate":
            trials.refuse_locked_look(config, paths)
        paths.manifest.unlink(missing_ok=True)
        state.enter(stage.name)
        begin = time.perf_counter()
        counts = stage.run(StageContext(config, paths, key, progress))
        seconds = round(time.perf_counter() - begin, 3)
        outputs = cache.record_files(paths.root, stage.outputs)
        state.finish(stage.name, {"key": key, "outputs": outputs, "counts": counts, "seconds": seconds})
        say(f"{stage.name}: done in {seconds:.1f} s" + _in_words(counts))
        yield StageOutcome(stage.name, "done", counts, seconds)


def _require(needed: str, stage: Stage, config: Config, paths: RunPaths, state: cache.RunState) -> None:
    """Fail unless the outputs of an earlier stage are there and as that stage left them."""
    earlier = next(candidate for candidate in STAGES if candidate.name == needed)
    if earlier.absent(config):
        return
    record = state.stages.get(needed)
    if record is None:
        raise InputError(f"stage {stage.name} needs what stage {needed} makes, which {paths.root} lacks: run it first")
    if not cache.unchanged(paths.root, record["outputs"]):
        raise InputError(f"outputs of stage {needed} in {paths.root} were altered or removed: run it again first")


def _in_words(counts: dict[str, Any]) -> str:
    shown = [f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items() if isinstance(value, int)]
    return f": {', '.join(shown)}" if shown else ""


def _seal(loaded: LoadedConfig, paths: RunPaths, state: cache.RunState) -> None:
    """Write the manifest, last of all."""
    config = loaded.config
    stages, artifacts, sources = {}, {}, {}
    for stage in STAGES:
        hashes = {} if stage.absent(config) else _inputs(stage, config, state)
        record = state.stages.get(stage.name)
        if record is None or stage.absent(config) or record["key"] != _key(stage, hashes, config):
            continue
        stages[stage.name] = {"key": record["key"], "counts": record["counts"], "seconds": record["seconds"]}
        for name, file in record["outputs"].items():
            artifacts[name] = {"sha256": file["sha256"], "bytes": file["bytes"], "stage": stage.name}
        for name, path in external_inputs(stage, config).items():
            sources[name] = {"path": str(path.resolve()), "sha256": hashes[name], "bytes": path.stat().st_size}
    manifest.write_manifest(
        paths.manifest,
        {
            "run": config.run.name,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "config_source": str(loaded.source) if loaded.source else None,
            "config": config.to_json(),
            "overrides": [{"key": o.key, "value": _plain(o.value), "origin": o.origin} for o in loaded.overrides],
            "code": manifest.describe_code(),
            "environment": manifest.describe_environment(),
            "inputs": sources,
            "stages": stages,
            "artifacts": artifacts,
            "trials": trials.head(config),
        },
    )


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)
