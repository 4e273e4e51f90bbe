"""One training job and its result, the same for every engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from finseek.core.errors import ConfigError
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


@dataclass(frozen=True)
class TrainResult:
    """What a finished job leaves.

    Attributes:
        checkpoint: Hugging Face folder: config, weights, tokenizer.
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


class Engine(Protocol):
    """A program that trains."""

    def run(self, job: TrainJob, progress: Progress = ...) -> TrainResult:
        """Train, or go on with the same job where a killed process left it."""
