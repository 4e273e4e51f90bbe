"""One training job and its result, the same for every engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from finseek.core.errors import ConfigError
from finseek.core.options import Options
from finseek.core.progress import Progress
from finseek.train.options import ModelOptions, ParallelOptions, TrackingOptions, TrainOptions


@dataclass(frozen=True)
class ModelInit:
    """Where the first weights come from: a preset (random, from the job's seed) or a checkpoint folder.

    Raises:
        ConfigError: unless exactly one of ``preset`` and ``path`` is given.
    """

    preset: str | None = None
    path: Path | None = None
    overrides: Mapping[str, int | float | bool | str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.preset is None) == (self.path is None):
            raise ConfigError("model: give exactly one of preset (random weights) and path (an existing checkpoint)")

    @classmethod
    def of(cls, options: ModelOptions) -> ModelInit:
        """The origin that the config section `model` names."""
        return cls(options.preset, options.path, dict(options.overrides))


@dataclass(frozen=True)
class Node:
    """This machine among those of a job; the first one prepares and collects, the others only compute.

    Attributes:
        rank: 0 for the first.
        rendezvous: HOST:PORT of the first, where processes meet; None for a job on one machine.
        meeting: name of this start of the job, the same on all machines and new after a requeue.
    """

    rank: int = 0
    rendezvous: str | None = None
    meeting: str = "alone"


@dataclass(frozen=True)
class TrainJob:
    """Everything that a training run depends on.

    Attributes:
        training: JSONL of samples to learn from.
        validation: JSONL of samples that choose the best weights; never trained on.
        tokenizer: Hugging Face tokenizer folder.
        init: first weights.
        output: folder that receives ``checkpoint/`` and ``train_log.jsonl``, and, while it runs, the resume state.
        options: how to train.
        parallel: layout over devices.
        seed: of the first weights and of the order of samples.
        tracking: where curves go besides the log.
        template: chat template of the samples, as ``prompt.template`` names it.
        node: this machine, where a job has several.
        name: under which trackers show it.
        origin: SHA-256 of what the run's manifest says of config, code and inputs; attached to the curves.
    """

    training: Path
    validation: Path
    tokenizer: Path
    init: ModelInit
    output: Path
    options: TrainOptions
    parallel: ParallelOptions
    seed: int
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    template: str = "deepseek"
    node: Node = Node()
    name: str = "run"
    origin: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the processes that an engine starts."""
        paths = {name: str(getattr(self, name).resolve()) for name in PATHS}
        options = {name: getattr(self, name).model_dump(mode="json") for name in OPTIONS}
        init = {**asdict(self.init), "path": str(self.init.path.resolve()) if self.init.path else None}
        rest = {"init": init, "node": asdict(self.node), "seed": self.seed, "template": self.template}
        rest |= {"name": self.name, "origin": self.origin}
        return paths | options | rest

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainJob:
        """The job that :meth:`to_json` gave."""
        init = {**values["init"], "path": Path(values["init"]["path"]) if values["init"]["path"] else None}
        parts: dict[str, Any] = {name: Path(values[name]) for name in PATHS}
        parts |= {name: kind.model_validate(values[name], strict=False) for name, kind in OPTIONS.items()}
        return cls(
            **parts,
            init=ModelInit(**init),
            node=Node(**values["node"]),
            seed=values["seed"],
            template=values["template"],
            name=values["name"],
            origin=values["origin"],
        )


PATHS = ("training", "validation", "tokenizer", "output")
OPTIONS: dict[str, type[Options]] = {"options": TrainOptions, "parallel": ParallelOptions, "tracking": TrackingOptions}


@dataclass(frozen=True)
class TrainResult:
    """What a finished job leaves.

    Attributes:
        checkpoint: Hugging Face folder: tokenizer, and config and weights or a PEFT adapter.
        log: train_log.jsonl.
        steps: optimiser steps taken.
        tokens: tokens read, padding not counted.
        best_step: step (count of updates done) of the lowest validation loss.
        best_validation_loss: that loss, nats per weighted token.
        seconds: time in training, over all resumptions.
    """

    checkpoint: Path
    log: Path
    steps: int
    tokens: int
    best_step: int
    best_validation_loss: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "checkpoint": str(self.checkpoint), "log": str(self.log)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainResult:
        """The result that :meth:`to_json` gave."""
        return cls(**{**values, "checkpoint": Path(values["checkpoint"]), "log": Path(values["log"])})


class Engine(Protocol):
    """A program that trains."""

    def run(self, job: TrainJob, progress: Progress = ...) -> TrainResult:
        """Train, or go on with the same job where a killed process left it."""
