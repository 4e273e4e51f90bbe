"""Ask a back end for every sample, keep each answer, and read the actions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from finseek.core.actions import ACTIONS, Action, parse_action
from finseek.core.errors import ConfigError, InputError
from finseek.core.progress import Progress, silent
from finseek.evaluate.answers import AnswerStore, answer_key
from finseek.evaluate.backends.base import Answer, Backend
from finseek.evaluate.options import EvaluateOptions
from finseek.evaluate.parse import Parsed, parse_answer
from finseek.evaluate.records import SCORED, Prediction
from finseek.samples import Sample


def load_backend(
    options: EvaluateOptions,
    checkpoint: Path | None,
    order: Sequence[str] = ("action", "reasoning", "support"),
    seed: int = 0,
    template: str = "deepseek",
    *,
    api_key: str | None = None,
) -> Backend:
    """The back end that the options name.

    Args:
        options: the evaluate section.
        checkpoint: folder of the model in the Hugging Face layout, with its tokenizer; the openai back end has none.
        order: order of the elements in an answer; what stands before the action is generated first.
        seed: of the sampling at temperatures above zero.
        template: chat template, as in the prompt options.
        api_key: of the server of the openai back end.

    Raises:
        InputError: an order without the action, or a checkpoint that is none.
    """
    if "action" not in order:
        raise InputError(f"the answer's order {list(order)} lacks the action: add it")
    if options.backend == "openai":
        from finseek.evaluate.backends.openai import OpenAIBackend

        return OpenAIBackend(options, api_key, seed)
    if checkpoint is None:
        raise InputError(f"the {options.backend} back end needs the folder of a checkpoint: name one")
    if options.backend == "auto":
        options = options.model_copy(update={"backend": backend_for(checkpoint)})
    if options.backend == "huggingface":
        from finseek.evaluate.backends.huggingface import HuggingFaceBackend

        return HuggingFaceBackend(checkpoint, options, order, seed, template)
    from finseek.evaluate.backends.native import NativeBackend

    return NativeBackend(checkpoint, options, order, seed, template)


def backend_for(checkpoint: Path) -> str:
    """The back end of a checkpoint: finseek's own for whole DeepSeek weights, transformers for all else."""
    from finseek.model import DeepSeekConfig

    try:
        DeepSeekConfig.from_json(checkpoint)
    except (ConfigError, OSError, ValueError):
        return "huggingface"
    return "huggingface" if (checkpoint / "adapter_config.json").is_file() else "native"


def predict(
    samples: Sequence[Sample],
    backend: Backend,
    options: EvaluateOptions,
    progress: Progress = silent,
    *,
    answers: Path | None = None,
) -> list[Prediction]:
    """One prediction for each sample, in their order: `ask`, then `read_answers`."""
    return read_answers(samples, ask(samples, backend, progress, answers=answers), options)


def ask(
    samples: Sequence[Sample], backend: Backend, progress: Progress = silent, *, answers: Path | None = None
) -> list[Answer]:
    """One answer to each sample, in their order.

    Args:
        samples: whose inputs are asked.
        backend: from `load_backend`.
        progress: told after every batch.
        answers: file that keeps the answers; what it already holds is not asked again.

    Raises:
        ArtifactError: the file of answers is damaged.
    """
    keys = [answer_key(backend.identity, sample.input) for sample in samples]
    with AnswerStore(answers) as store:
        batches = [batch for batch in backend.plan(samples) if not all(keys[i] in store for i in batch)]
        done = len(samples) - sum(map(len, batches))
        asked = ([samples[i] for i in batch] for batch in batches)
        progress("evaluate", done, len(samples), "answers")
        for number, given in backend.answers(asked):
            store.keep([keys[i] for i in batches[number]], given)
            done += len(given)
            progress("evaluate", done, len(samples), "answers")
        return [store[key] for key in keys]


def read_answers(samples: Sequence[Sample], answers: Sequence[Answer], options: EvaluateOptions) -> list[Prediction]:
    """The predictions that answers hold.

    Raises:
        InputError: a sample without ticker, as_of_date or action in its metadata.
    """
    return [_prediction(sample, answer, options) for sample, answer in zip(samples, answers, strict=True)]


def usage(answers: Iterable[Answer], options: EvaluateOptions) -> dict[str, float | None]:
    """Answers, the tokens of their prompts and texts as far as they were counted, and what a server charges for them.

    The cost is in the currency of evaluate.openai.input_price and output_price; None for a model run here.
    """
    given = list(answers)
    prompt, generated = (sum(getattr(a, name) or 0 for a in given) for name in ("prompt_tokens", "tokens"))
    server = options.openai
    cost = (prompt * server.input_price + generated * server.output_price) / 1e6
    return {
        "answers": len(given),
        "prompt_tokens": prompt,
        "generated_tokens": generated,
        "cost": cost if options.backend == "openai" else None,
    }


def _prediction(sample: Sample, answer: Answer, options: EvaluateOptions) -> Prediction:
    about = sample.metadata
    try:
        row = (about["ticker"], date.fromisoformat(about["as_of_date"]), parse_action(about["action"]))
    except KeyError as error:
        raise InputError(f"a sample's metadata lacks {error}: it needs ticker, as_of_date and action") from None
    read, p = read_answer(answer, options)
    sure = None
    if read.action and answer.action_log_p is not None:
        sure = math.exp(min(answer.action_log_p, 0.0))
    return Prediction(*row, read.action, read.status, p, answer.text, read.repairs, sure)


def read_answer(answer: Answer, options: EvaluateOptions) -> tuple[Parsed, dict[Action, float] | None]:
    """The action of an answer, or the reason why it has none, and the five probabilities where they are known."""
    read = best_action(answer.log_p) if options.mode == "score" else parse_answer(answer.text)
    p = None
    if answer.log_p is not None and read.status != "not_finite":
        weights = [math.exp(value - max(answer.log_p)) for value in answer.log_p]
        p = {action: weight / sum(weights) for action, weight in zip(ACTIONS, weights, strict=True)}
    return read, p


def best_action(log_p: Sequence[float] | None) -> Parsed:
    """The most probable action; a tie, or no finite log-probability, is unscored."""
    if log_p is None:
        return Parsed(None, "no_action")
    best = max(log_p)
    if not all(map(math.isfinite, log_p)):
        return Parsed(None, "not_finite")
    if sum(value == best for value in log_p) > 1:
        return Parsed(None, "tie")
    return Parsed(ACTIONS[list(log_p).index(best)], SCORED)
