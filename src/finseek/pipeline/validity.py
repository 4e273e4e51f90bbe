"""Which outputs in a run folder are what this config would make now, whatever lies there besides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finseek.core.artifacts import sha256_file
from finseek.core.errors import InputError
from finseek.pipeline import cache
from finseek.pipeline.config import Config
from finseek.pipeline.stages import STAGES, Stage

BY_NAME = {stage.name: stage for stage in STAGES}


def external_inputs(stage: Stage, config: Config) -> dict[str, Path]:
    """The files outside the run folder that a stage reads, by a name that does not depend on the machine.

    Raises:
        InputError: a source does not exist.
    """
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


class Validity:
    """Answers for one config, one run folder and its state as it stands at the moment."""

    def __init__(self, config: Config, root: Path, state: cache.RunState) -> None:
        self.config, self.root, self.state = config, root, state
        self._hashes: dict[Path, str] = {}
        self._files: dict[str, dict[str, Path]] = {}  # listed once, as they are hashed once

    def stands(self, stage: Stage) -> bool:
        """Whether the outputs of a stage, and of all that it rests on, are what this config would make."""
        record = self.state.stages.get(stage.name)
        if record is None or stage.absent(self.config):
            return False
        rests = stage.tolerant or not self.lacking(stage)
        return (
            rests
            and record["key"] == self.key(stage)
            and cache.unchanged(self.root, record["outputs"])
            and all(copy.exists() for copy in stage.copies(self.config))
        )

    def lacking(self, stage: Stage) -> list[str]:
        """Stages that this one rests on, directly or not, and whose outputs do not stand; the earliest first."""
        found = set()
        for earlier in (BY_NAME[name] for name in stage.needs):
            if not earlier.absent(self.config) and not self.stands(earlier):
                found |= {earlier.name, *self.lacking(earlier)}
        return [name for name in BY_NAME if name in found]

    def present(self, stage: Stage) -> frozenset[str]:
        """Earlier stages whose outputs this stage may read."""
        return frozenset(name for name in stage.needs if self.stands(BY_NAME[name]))

    def key(self, stage: Stage) -> str:
        """The key under which outputs made now would be valid."""
        part = {section: self.config.part(section) for section in stage.sections}
        part["seed"] = self.config.run.seed
        return cache.stage_key(stage.name, cache.code_hash(stage.code), part, self.inputs(stage))

    def inputs(self, stage: Stage) -> dict[str, str]:
        """SHA-256 of everything that a stage reads: files from outside and outputs of earlier stages."""
        hashes = self.external(stage)
        for name in sorted(self.present(stage)):
            for file, record in self.state.stages[name]["outputs"].items():
                hashes[file] = record["sha256"]
        return hashes

    def external(self, stage: Stage) -> dict[str, str]:
        """SHA-256 of the files outside the run folder that a stage reads."""
        return {name: self._hash(path) for name, path in self._listed(stage).items()}

    def sources(self, stage: Stage) -> dict[str, dict[str, Any]]:
        """The same files, each with where it lies, its SHA-256 and its bytes."""
        hashes = self.external(stage)
        return {
            name: {"path": str(path.resolve()), "sha256": hashes[name], "bytes": path.stat().st_size}
            for name, path in self._listed(stage).items()
        }

    def _listed(self, stage: Stage) -> dict[str, Path]:
        if stage.name not in self._files:
            self._files[stage.name] = external_inputs(stage, self.config)
        return self._files[stage.name]

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = sha256_file(path)
        return self._hashes[path]
