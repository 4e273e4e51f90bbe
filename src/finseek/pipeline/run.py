"""Run the stages of a config in order, skipping what is still valid, and seal the run with its manifest."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finseek.core.artifacts import remove_partials, sha256_json
from finseek.core.errors import ConfigError, InputError
from finseek.core.progress import Progress, silent
from finseek.pipeline import cache, manifest, trials
from finseek.pipeline.config import Config
from finseek.pipeline.config_file import LoadedConfig
from finseek.pipeline.lock import held
from finseek.pipeline.paths import RunPaths
from finseek.pipeline.stages import STAGES, Stage, StageContext, check_model
from finseek.pipeline.validity import Validity, external_inputs
from finseek.train.job import Node

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
    chosen = tuple(stage for stage in STAGES[begin : end + 1] if stage.name not in skip)
    if not chosen:
        raise ConfigError(f"--skip {', '.join(skip)} leaves no stage: nothing would run")
    return chosen


def run(
    loaded: LoadedConfig,
    *,
    first: str | None = None,
    last: str | None = None,
    skip: Collection[str] = (),
    progress: Progress = silent,
    say: Say = lambda line: None,
    detail: Say = lambda line: None,
    node: Node = Node(),  # noqa: B008
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
        detail: told one line for each file that a stage wrote.
        node: this machine, where several train one model: the first one.

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
        validity = Validity(config, paths.root, state)
        description = _description(loaded, validity, chosen)
        state.begin({"started": _now(), **description, "sha256": sha256_json(description)})
        try:
            outcomes = tuple(_run_stages(validity, paths, chosen, first, progress, say, detail, node, loaded.secrets))
        except BaseException as error:
            state.close("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        if not paths.manifest.exists():
            _seal(config, validity, paths, description)
        state.close("done")
    return RunResult(config, paths, outcomes)


def plan_run(loaded: LoadedConfig, *, first: str | None, last: str | None, skip: Collection[str]) -> list[StageOutcome]:
    """What :func:`run` would do, without doing it."""
    config = loaded.config
    paths = RunPaths(config.run.output_dir / config.run.name)
    validity = Validity(config, paths.root, cache.RunState(paths.state))
    plan = []
    stale: set[str] = set()
    chosen = select_stages(first, last, skip)
    _check(chosen, config)
    for stage in chosen:
        reason = stage.absent(config)
        if reason:
            plan.append(StageOutcome(stage.name, "left out", {}, 0.0, reason))
            continue
        if stage.name == first or stale & set(stage.needs) or not validity.stands(stage):
            stale.add(stage.name)
        plan.append(StageOutcome(stage.name, "would run" if stage.name in stale else "unchanged", {}, 0.0))
    return plan


def _check(chosen: Iterable[Stage], config: Config) -> None:
    """Refuse before any work what a chosen stage would refuse later: its part of the config, a missing source."""
    check_model(config)
    _refuse_to_replace_sources(config)
    for stage in chosen:
        if not stage.absent(config):
            stage.check(config)
            external_inputs(stage, config)


def _refuse_to_replace_sources(config: Config) -> None:
    """Refuse a copy that would be written over what a stage reads, or among it."""
    for label, source in ((label, path) for stage in STAGES for label, path in stage.sources(config).items()):
        for copy in (copy.resolve() for stage in STAGES for copy in stage.copies(config)):
            if copy == source.resolve() or (source.is_dir() and copy.is_relative_to(source.resolve())):
                raise ConfigError(f"the run would write {copy} over {label} {source} or into it: write elsewhere")


def _run_stages(
    validity: Validity,
    paths: RunPaths,
    chosen: tuple[Stage, ...],
    first: str | None,
    progress: Progress,
    say: Say,
    detail: Say,
    node: Node,
    secrets: Mapping[str, str],
) -> Iterator[StageOutcome]:
    config, state = validity.config, validity.state
    for stage in chosen:
        reason = stage.absent(config)
        if reason:
            say(f"{stage.name}: left out, {reason}")
            yield StageOutcome(stage.name, "left out", {}, 0.0, reason)
            continue
        lacking = [] if stage.tolerant else validity.lacking(stage)
        if lacking:
            raise InputError(
                f"stage {stage.name} needs stage {lacking[0]} as this config would make it, which {paths.root} lacks: "
                f"begin with --from {lacking[0]}, or run all stages"
            )
        if stage.name != first and validity.stands(stage):
            record = state.stages[stage.name]
            say(f"{stage.name}: unchanged")
            yield StageOutcome(stage.name, "unchanged", record["counts"], record["seconds"])
            continue
        trials.refuse_locked_look(config, paths, stage.name)
        key, present = validity.key(stage), validity.present(stage)
        paths.manifest.unlink(missing_ok=True)
        state.enter(stage.name)
        begin = time.perf_counter()
        counts = stage.run(StageContext(config, paths, key, present, validity.sources(stage), progress, node, secrets))
        seconds = round(time.perf_counter() - begin, 3)
        trials.record_look(config, paths, stage.name)
        written = [name for name in stage.optional if (paths.root / name).exists()]
        outputs = cache.record_files(paths.root, [*stage.outputs, *written])
        state.finish(stage.name, {"key": key, "outputs": outputs, "counts": counts, "seconds": seconds})
        say(f"{stage.name}: done in {seconds:.1f} s" + _in_words(counts))
        for name, file in outputs.items():
            detail(f"  wrote {name}: {file['bytes']:,} bytes, sha256 {file['sha256'][:12]}")
        yield StageOutcome(stage.name, "done", counts, seconds)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _description(loaded: LoadedConfig, validity: Validity, chosen: Iterable[Stage]) -> dict[str, Any]:
    """What a manifest will say of a run, as far as it is known at its start."""
    config = loaded.config
    present = [stage for stage in chosen if not stage.absent(config)]
    return {
        "config_source": str(loaded.source) if loaded.source else None,
        "config": config.to_json(),
        "overrides": [{"key": o.key, "value": _plain(o.value), "origin": o.origin} for o in loaded.overrides],
        "code": manifest.describe_code(),
        "environment": manifest.describe_environment(),
        "seeds": [config.run.seed, *config.train.seeds],
        "inputs": {name: digest for stage in present for name, digest in validity.external(stage).items()},
    }


def _in_words(counts: dict[str, Any]) -> str:
    shown = [
        f"best at step {value:,}" if name == "best_step" else f"{value:,} {name.replace('_', ' ')}"
        for name, value in counts.items()
        if isinstance(value, int)
    ]
    return f": {', '.join(shown)}" if shown else ""


def _seal(config: Config, validity: Validity, paths: RunPaths, description: Mapping[str, Any]) -> None:
    """Set aside what another config left in the folder, then write the manifest, last of all."""
    state = validity.state
    stages, artifacts = {}, {}
    sources: dict[str, dict[str, Any]] = {}
    for stage in STAGES:
        record = state.stages.get(stage.name)
        if record is None:
            continue
        if not validity.stands(stage):
            _set_aside(paths, stage)
            state.forget(stage.name)
            continue
        stages[stage.name] = {"key": record["key"], "counts": record["counts"], "seconds": record["seconds"]}
        for name, file in record["outputs"].items():
            artifacts[name] = {"sha256": file["sha256"], "bytes": file["bytes"], "stage": stage.name}
        sources |= validity.sources(stage)
    manifest.write_manifest(
        paths.manifest,
        {
            "run": config.run.name,
            "finished": _now(),
            "description_sha256": sha256_json(description),
            **{name: description[name] for name in ("config_source", "config", "overrides", "code", "environment")},
            "inputs": sources,
            "stages": stages,
            "artifacts": artifacts,
            "trials": trials.head(config),
        },
    )


def _set_aside(paths: RunPaths, stage: Stage) -> None:
    """Move outputs that this config would not make into ``stale/``: nothing is lost, and nothing old looks current."""
    for output in (*stage.outputs, *stage.optional):
        old, place = paths.root / output, paths.stale / output
        if old.exists():
            shutil.rmtree(place, ignore_errors=True)
            place.unlink(missing_ok=True)
            place.parent.mkdir(parents=True, exist_ok=True)
            old.rename(place)
            if old.parent != paths.root and not any(old.parent.iterdir()):
                old.parent.rmdir()


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)
