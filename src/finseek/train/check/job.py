"""What is looked at before the first step; all that a check changes is put back, so that training does not see it.

A check that fails names the fault and the remedy; one that cannot be afforded says that it was left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finseek.core.errors import InputError
from finseek.model import DeepSeekV3
from finseek.samples import Encoder, Sample
from finseek.train.check.model import (
    STEPS,
    Finding,
    check_experts,
    check_gradients,
    check_labels,
    check_overfit,
)
from finseek.train.check.probe import Subject, affordable
from finseek.train.data import ACTION, TokenSet
from finseek.train.engines.batches import TensorBatch, tensors
from finseek.train.options import TrainOptions

ROWS = 8


@dataclass(frozen=True)
class CheckReport:
    """All checks of a job, in their order."""

    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The checks that failed."""
        return tuple(finding for finding in self.findings if finding.passed is False)

    @property
    def summary(self) -> str:
        """One line: how many passed, what was left open, and how much there is to read."""
        passed = sum(finding.passed is True for finding in self.findings)
        open_ = [finding.name for finding in self.findings if finding.passed is None]
        left = f" ({', '.join(open_)} left open)" if open_ else ""
        volume = next(finding.detail for finding in self.findings if finding.name == "volume")
        return f"{passed} of {len(self.findings)} checks before the first step passed{left}; {volume}"

    def raise_if_failed(self) -> None:
        """Raise the first failure.

        Raises:
            InputError: if any check failed.
        """
        if self.failed:
            more = f" (and {len(self.failed) - 1} more checks failed)" if len(self.failed) > 1 else ""
            raise InputError(f"check {self.failed[0].name}: {self.failed[0].detail}{more}")


def check_job(
    model: DeepSeekV3 | Subject,
    samples: Sequence[Sample],
    tokens: TokenSet,
    encoder: Encoder,
    options: TrainOptions,
    total_steps: int,
    steps_per_epoch: int,
) -> CheckReport:
    """Run every check.

    Args:
        model: before its first step; it is the same afterwards.
        samples: the training samples.
        tokens: the same, encoded.
        encoder: how they were encoded.
        options: how the job trains.
        total_steps: optimiser steps of the job.
        steps_per_epoch: of which one epoch takes.
    """
    subject = model if isinstance(model, Subject) else Subject.of(model)
    findings = [
        check_masks(samples, tokens, encoder, options),
        check_actions(samples, tokens, encoder),
        check_special_tokens(samples, tokens, encoder, subject),
        _volume(tokens, total_steps, steps_per_epoch),
    ]
    if all(finding.passed is not False for finding in findings):
        batch = first_batch(tokens, options, subject)
        for check in (check_labels, check_gradients, check_experts, check_overfit):
            findings.append(check(subject, batch, options))
            if findings[-1].passed is False:
                break
    return CheckReport(tuple(findings))


def first_batch(tokens: TokenSet, options: TrainOptions, subject: Subject) -> TensorBatch:
    """A few samples spread over the file, as one pass; fewer of them where the model is large."""
    weights = tokens.token_weights(options.loss_weights, options.answer_only_loss)
    device = next(subject.model.parameters()).device
    rows = ROWS
    while True:
        chosen = np.unique(np.linspace(0, len(tokens) - 1, rows).astype(np.int64))
        batch = tensors(tokens.collate(chosen.tolist(), weights, subject.pad or 0))
        if rows == 1 or affordable(subject.model, batch, STEPS):
            return TensorBatch(*(None if each is None else each.to(device) for each in batch))
        rows //= 2


def check_masks(samples: Sequence[Sample], tokens: TokenSet, encoder: Encoder, options: TrainOptions) -> Finding:
    """Every sample has a token whose loss counts; those of one are shown as text."""
    weights = tokens.token_weights(options.loss_weights, options.answer_only_loss)
    counted = np.add.reduceat(weights, tokens.starts[:-1])
    empty = np.flatnonzero(counted <= 0)
    if len(empty):
        return Finding(
            "loss mask",
            False,
            f"{len(empty)} of {len(tokens)} samples have an empty loss mask, the first is {_name(samples, empty[0])}:"
            " look at train.answer_only_loss, train.loss_weights and the answers",
        )
    first = slice(tokens.starts[0], tokens.starts[1])
    learned = encoder.decode(tokens.tokens[first][weights[first] > 0])
    return Finding(
        "loss mask",
        True,
        f"all {len(tokens)} samples have tokens to learn; {_name(samples, 0)} learns {learned!r:.200}",
    )


def check_actions(samples: Sequence[Sample], tokens: TokenSet, encoder: Encoder) -> Finding:
    """The tokens marked as the action spell the action of the sample, for each of a spread of samples."""
    shown = ""
    for row in np.unique(np.linspace(0, len(tokens) - 1, ROWS).astype(np.int64)):
        part = slice(tokens.starts[row], tokens.starts[row + 1])
        marked = encoder.decode(tokens.tokens[part][tokens.roles[part] == ACTION])
        action = samples[row].metadata.get("action")
        if action and samples[row].metadata.get("action_span") and marked != f"{action}</action>":
            return Finding(
                "action tokens",
                False,
                f"the loss of {_name(samples, row)} marks {marked!r} as its action {action}: labels and mask are"
                " shifted against each other; build the samples again",
            )
        shown = shown or f"{_name(samples, row)} marks {marked!r}"
    return Finding("action tokens", True, shown)


def check_special_tokens(samples: Sequence[Sample], tokens: TokenSet, encoder: Encoder, subject: Subject) -> Finding:
    """One begin token, at the start; end and padding tokens that differ."""
    begin, ends, pad = subject.begin, subject.ends, subject.pad
    if pad is not None and pad in ends:
        text = encoder.decode([pad])
        return Finding("special tokens", False, f"padding and end of sentence are the same token {text!r}: give two")
    counts = np.add.reduceat((tokens.tokens == begin).astype(np.int64), tokens.starts[:-1])
    wrong = np.flatnonzero(counts > 1)
    if begin not in ends and len(wrong):
        return Finding(
            "special tokens",
            False,
            f"{len(wrong)} samples begin more than once, {_name(samples, wrong[0])} has {counts[wrong[0]]} times the"
            f" token {encoder.decode([begin or 0])!r}: template and tokenizer both add it, or the text holds it",
        )
    return Finding("special tokens", True, f"begin {begin}, end {list(ends)}, padding {pad}")


def _volume(tokens: TokenSet, total_steps: int, steps_per_epoch: int) -> Finding:
    share = tokens.truncated / len(tokens)
    return Finding(
        "volume",
        True,
        f"{len(tokens.tokens)} tokens an epoch, {share:.1%} of samples cut to train.seq_length,"
        f" {steps_per_epoch} steps an epoch, {total_steps} in all",
    )


def _name(samples: Sequence[Sample], row: int) -> str:
    metadata = samples[row].metadata
    return f"{metadata.get('ticker', '')} {metadata.get('as_of_date', '')}".strip() or f"sample {row + 1}"
