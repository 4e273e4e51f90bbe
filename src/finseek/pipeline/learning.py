"""The stage that trains the model."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from finseek.core.artifacts import read_json
from finseek.pipeline.config import Config
from finseek.pipeline.data import samples_of
from finseek.pipeline.paths import RunPaths
from finseek.pipeline.stages import StageContext

if TYPE_CHECKING:
    from finseek.train import TrainJob


def job_of(config: Config, paths: RunPaths) -> TrainJob:
    """The training of a run."""
    from finseek.train import ModelInit, TrainJob

    assert config.model is not None
    return TrainJob(
        training=samples_of(paths, "train"),
        validation=samples_of(paths, "validation"),
        tokenizer=paths.samples / "tokenizer",
        init=ModelInit.of(config.model),
        output=paths.train,
        options=config.train,
        parallel=config.parallel,
        seed=config.run.seed,
        tracking=config.tracking,
        template=config.prompt.template,
        name=config.run.name,
    )


def check_the_training(config: Config, paths: RunPaths) -> list[dict[str, Any]]:
    """What is looked at before the first step: name, result and what was seen of each check."""
    from finseek.train.preflight import check_training

    return [asdict(finding) for finding in check_training(job_of(config, paths)).findings]


def train_the_model(context: StageContext) -> dict[str, Any]:
    """Stage ``train``: samples to a checkpoint; a killed training goes on where its last state was."""
    from finseek.train.seeds import train_seeds

    config, paths = context.config, context.paths
    job = replace(job_of(config, paths), node=context.node, origin=read_json(paths.state)["run"]["sha256"])
    result, spread = train_seeds(job, context.progress)
    several = {"seeds": len(config.train.seeds), "validation_loss_spread": spread["standard_deviation"]}
    return (several if config.train.seeds else {}) | {
        "steps": result.steps,
        "tokens": result.tokens,
        "best_step": result.best_step,
        "best_validation_loss": result.best_validation_loss,
    }
