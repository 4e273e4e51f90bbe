"""How well a model answers instructions that it has not seen: nats per token of the reference answers.

A row is one conversation of the test split; its last answer is scored, given all turns before it. Intervals come from
resampling rows; "better" is an interval of the paired difference above zero.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.core.artifacts import write_text
from finseek.core.progress import Progress, silent
from finseek.evaluate.backends.local import Ids, LocalBackend, cpu_threads
from finseek.evaluate.options import EvaluateOptions
from finseek.evaluate.text import similarity
from finseek.samples import Encoder, Sample
from finseek.stats import bootstrap_interval, paired_difference, resample_counts, stationary_bootstrap

Floats = NDArray[np.float64]
COMPARED_TEXTS = 50


@dataclass(frozen=True)
class InstructionRow:
    """One answer.

    Attributes:
        tokens: of the reference answer and its end.
        nll: nats of all of them.
        frequencies_nll: the same by token frequencies of the training answers.
        before_nll: the same by the checkpoint before training; None where that was not asked.
        completion: what the model wrote; None unless it was asked to write.
    """

    tokens: int
    nll: float
    frequencies_nll: float
    before_nll: float | None
    completion: str | None


def score_instructions(
    samples: Sequence[Sample],
    training: Sequence[Sample],
    backend: LocalBackend,
    encoder: Encoder,
    options: EvaluateOptions,
    *,
    untrained: LocalBackend | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[list[InstructionRow], dict[str, Any]]:
    """Score the reference answers; in generate mode the model's own texts are compared with them, too.

    Args:
        samples: of the test split.
        training: whose answers give the token frequencies of the first baseline.
        backend: the trained model.
        encoder: of the run's tokenizer.
        options: the evaluate section.
        untrained: the checkpoint that training started from, with the same tokenizer.
        seed: of the bootstrap.
        progress: told after every batch.

    Returns:
        The rows in the order of the samples, and metrics as plain data.
    """
    pairs = [_pair(encoder, sample) for sample in samples]
    tokens = np.array([len(tail) for _, tail in pairs], dtype=np.float64)
    nll = _nll(backend, pairs, options, progress)
    counts = np.ones(encoder.vocab_size)
    for sample in training:
        np.add.at(counts, _pair(encoder, sample)[1], 1)
    surprise = -np.log(counts / counts.sum())
    frequencies = np.array([surprise[tail].sum() for _, tail in pairs])
    before = None if untrained is None else _nll(untrained, pairs, options, progress)
    texts = _written(backend, samples) if options.mode == "generate" else [None] * len(samples)

    rng = np.random.default_rng(seed)
    resampled = resample_counts(stationary_bootstrap(len(samples), 1.0, options.bootstrap_resamples, rng))

    def loss(totals: Floats) -> Floats:
        share: Floats = totals[..., 0] / totals[..., 1]
        return share

    mine = np.stack([nll, tokens], axis=1)
    others = {"token_frequencies": frequencies} | ({} if before is None else {"before_training": before})
    metrics: dict[str, Any] = {
        "kind": "instruction",
        "rows": {"total": len(samples), "scored": len(samples)},
        "answer_tokens": int(tokens.sum()),
        "loss": bootstrap_interval(mine, loss, resampled, options.level).to_json(),
        "perplexity": math.exp(min(float(nll.sum() / tokens.sum()), 700.0)),
        "level": options.level,
        "baselines": {
            name: {
                "loss": float(theirs.sum() / tokens.sum()),
                "improvement": paired_difference(
                    np.stack([theirs, tokens], axis=1), mine, loss, resampled, options.level
                ).to_json(),
            }
            for name, theirs in others.items()
        },
    }
    if options.mode == "generate":
        metrics["text"] = _text(texts, samples)
    rows = [
        InstructionRow(int(tokens[i]), float(nll[i]), float(frequencies[i]),
                       None if before is None else float(before[i]), texts[i])
        for i in range(len(samples))
    ]  # fmt: skip
    return rows, metrics


def write_rows(path: Path, rows: Sequence[InstructionRow]) -> None:
    """Write one line of CSV a row."""
    text = StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["row", "tokens", "nll", "token_frequencies_nll", "before_training_nll", "completion"])
    for number, row in enumerate(rows):
        lines.writerow([number, row.tokens, row.nll, row.frequencies_nll, row.before_nll, row.completion])
    write_text(path, text.getvalue())


def _pair(encoder: Encoder, sample: Sample) -> tuple[Ids, Ids]:
    """The prompt, and the answer with its end."""
    prompt, encoded = encoder.prompt_ids(sample), encoder.encode(sample)
    end = int(np.flatnonzero(encoded.role)[-1]) + 1  # markup may follow the answer
    return prompt, encoded.input_ids[len(prompt) : end].tolist()


def _nll(
    backend: LocalBackend, pairs: Sequence[tuple[Ids, Ids]], options: EvaluateOptions, progress: Progress
) -> Floats:
    order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]) - len(pairs[i][1]))
    found = np.zeros(len(pairs))
    with cpu_threads(options.threads):
        for start in range(0, len(order), options.batch_size):
            batch = order[start : start + options.batch_size]
            found[batch] = -backend.log_p([pairs[i] for i in batch])
            progress("evaluate", start + len(batch), len(order), "answers")
    return found


def _written(backend: LocalBackend, samples: Sequence[Sample]) -> list[str | None]:
    texts: list[str | None] = [None] * len(samples)
    plan = backend.plan(samples)
    for number, answers in backend.answers([samples[i] for i in batch] for batch in plan):
        for place, answer in zip(plan[number], answers, strict=True):
            texts[place] = answer.text
    return texts


def _text(texts: Sequence[str | None], samples: Sequence[Sample]) -> dict[str, Any]:
    written = [text or "" for text in texts]
    exact = [text.strip() == sample.output.strip() for text, sample in zip(written, samples, strict=True)]
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(COMPARED_TEXTS, len(samples))).astype(int)).tolist()
    return {
        "exact_match": float(np.mean(exact)),
        **similarity([written[i] for i in chosen], [samples[i].output for i in chosen]),
    }
