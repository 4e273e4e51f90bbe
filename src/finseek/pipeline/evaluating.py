"""The stage that asks the model about the test split and scores its answers beside its baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finseek.core.artifacts import write_json
from finseek.core.errors import ArtifactError, InputError
from finseek.pipeline.data import run_prices, samples_of
from finseek.pipeline.stages import StageContext

if TYPE_CHECKING:
    from finseek.core.actions import Action
    from finseek.evaluate import Prediction
    from finseek.evaluate.backends.base import Backend
    from finseek.samples import Sample


def evaluate_the_model(context: StageContext) -> dict[str, Any]:
    """Stage ``evaluate``: the test split answered by the model, scored beside its baselines."""
    from finseek.evaluate import score_predictions, standard_baselines, write_results
    from finseek.market import snapshots
    from finseek.samples import load_samples
    from finseek.theses import load_split, load_theses

    config, paths = context.config, context.paths
    prices = run_prices(context)
    samples = load_samples(samples_of(paths, "test"))
    asked = _ask(context, samples)
    rows = asked.predictions
    training, history = load_split(paths.split / "train.parquet"), load_theses(paths.theses / "all.jsonl")
    baselines, absent = standard_baselines(
        rows,
        training,
        history,
        snapshots(prices, config.prompt.snapshot) if prices else None,
        names=[name for name in config.evaluate.baselines if name != "base"],
        ticker=config.prompt.ticker,
        last_actions=config.prompt.last_actions,
        seed=config.run.seed,
    )
    if "base" in config.evaluate.baselines:
        try:
            baselines["base"] = _untuned(context, samples)
        except (InputError, ArtifactError) as error:
            absent["base"] = str(error)
    metrics = score_predictions(
        rows, prices, config.evaluate, training=training, history=history, baselines=baselines, seed=config.run.seed
    ).to_json()
    metrics |= {"baselines_left_out": absent, **asked.about}
    write_results(paths.evaluate / "eval_results.csv", rows, prices)
    write_json(paths.evaluate / "metrics.json", metrics)
    counts = metrics["rows"]
    return {"answers": counts["total"], "scored": counts["scored"], "unscored": counts["total"] - counts["scored"]}


@dataclass(frozen=True)
class _Asked:
    """Predictions of the test split, and what metrics.json says of the asking."""

    predictions: list[Prediction]
    about: dict[str, Any]


def _ask(context: StageContext, samples: Sequence[Sample]) -> _Asked:
    """Answers of the model; of several draws the first counts, and the others tell how sure it is."""
    from finseek.evaluate.ask import ask, read_answers, usage
    from finseek.evaluate.draws import agreement
    from finseek.evaluate.text import text_metrics

    config, options, kept = context.config, context.config.evaluate, context.paths.answers
    backend = backend_of(context, context.paths.train / "checkpoint")
    seeded = [backend, *(backend.reseeded(config.run.seed + draw) for draw in range(1, options.draws))]
    answers = [ask(samples, one, context.progress, answers=kept) for one in seeded]
    draws = [read_answers(samples, given, options) for given in answers]
    about: dict[str, Any] = {"usage": usage((answer for given in answers for answer in given), options)}
    if options.mode == "generate":
        about["text"] = text_metrics(samples, draws[0])
    if options.draws > 1:
        about["draws"] = agreement(draws)
    return _Asked(draws[0], about)


def _untuned(context: StageContext, samples: Sequence[Sample]) -> list[Action | None]:
    """Answers of the checkpoint that the training began with, to the same prompts."""
    from finseek.evaluate import predict

    model, options = context.config.model, context.config.evaluate
    if options.backend == "openai":
        raise InputError("the model is on a server, which is asked as it is")
    if model is None or model.path is None:
        raise InputError("the training began with random weights, not with a checkpoint")
    backend = backend_of(context, model.path)
    return [
        row.pred_action for row in predict(samples, backend, options, context.progress, answers=context.paths.answers)
    ]


def backend_of(context: StageContext, checkpoint: Path) -> Backend:
    """The back end that the config names, on a checkpoint; a server has its own model."""
    from finseek.evaluate import load_backend

    config = context.config
    return load_backend(
        config.evaluate,
        checkpoint,
        config.prompt.answer_order,
        config.run.seed,
        config.prompt.template,
        api_key=context.secrets.get("OPENAI_API_KEY"),
    )
