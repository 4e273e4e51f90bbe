"""The stage that trains the model."""

from __future__ import annotations

from typing import Any

from finseek.core.artifacts import read_json
from finseek.pipeline.data import samples_of
from finseek.pipeline.stages import StageContext


def train_the_model(context: StageContext) -> dict[str, Any]:
    """Stage ``train``: samples to a checkpoint; a killed training goes on where its last state was."""
    from finseek.train import ModelInit, TrainJob
    from finseek.train.seeds import train_seeds

    config, paths = context.config, context.paths
    assert config.model is not None
    job = TrainJob(
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
        node=context.node,
        name=config.run.name,
        origin=read_json(paths.state)["run"]["sha256"],
    )
    result, spread = train_seeds(job, context.progress)
    several = {"seeds": len(config.train.seeds), "validation_loss_spread": spread["standard_deviation"]}
    return (several if config.train.seeds else {}) | {
        "steps": result.steps,
        "tokens": result.tokens,
        "best_step": result.best_step,
        "best_validation_loss": result.best_validation_loss,
    }
