"""The stages of the model: train, evaluate."""

from __future__ import annotations

from typing import Any

from finseek.core.artifacts import write_json
from finseek.pipeline.data import run_prices, samples_of
from finseek.pipeline.stages import StageContext


def train_the_model(context: StageContext) -> dict[str, Any]:
    """Stage ``train``: samples to a checkpoint; a killed training goes on where its last state was."""
    from finseek.train import ModelInit, TrainJob, engine_or_stand_in

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
    )
    result = engine_or_stand_in(config.train.engine).run(job, context.progress)
    return {
        "steps": result.steps,
        "tokens": result.tokens,
        "best_step": result.best_step,
        "best_validation_loss": result.best_validation_loss,
    }


def evaluate_the_model(context: StageContext) -> dict[str, Any]:
    """Stage ``evaluate``: the test split answered by the model, scored beside its baselines."""
    from finseek.evaluate import load_backend, predict, score_predictions, standard_baselines, write_results
    from finseek.market import snapshots
    from finseek.samples import load_samples
    from finseek.theses import load_split, load_theses

    config, paths = context.config, context.paths
    prices = run_prices(context)
    backend = load_backend(
        config.evaluate,
        paths.train / "checkpoint",
        config.prompt.answer_order,
        config.run.seed,
        config.prompt.template,
    )
    samples = load_samples(samples_of(paths, "test"))
    kept_answers = paths.evaluate / "answers.jsonl"
    predictions = predict(samples, backend, config.evaluate, context.progress, answers=kept_answers)
    training, history = load_split(paths.split / "train.parquet"), load_theses(paths.theses / "all.jsonl")
    baselines, absent = standard_baselines(
        predictions,
        training,
        history,
        snapshots(prices, config.prompt.snapshot) if prices else None,
        names=config.evaluate.baselines,
        ticker=config.prompt.ticker,
        last_actions=config.prompt.last_actions,
        seed=config.run.seed,
    )
    metrics = score_predictions(
        predictions,
        prices,
        config.evaluate,
        training=training,
        history=history,
        baselines=baselines,
        seed=config.run.seed,
    ).to_json()
    metrics["baselines_left_out"] = absent
    write_results(paths.evaluate / "eval_results.csv", predictions, prices)
    write_json(paths.evaluate / "metrics.json", metrics)
    kept_answers.unlink(missing_ok=True)
    rows = metrics["rows"]
    return {"answers": rows["total"], "scored": rows["scored"], "unscored": rows["total"] - rows["scored"]}
