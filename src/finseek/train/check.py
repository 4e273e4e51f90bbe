"""What is looked at before the first step, on copies, so that training itself is not changed by it.

A check that fails names the fault and the remedy; one that cannot be afforded says that it was left out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finseek.core.errors import InputError
from finseek.model import DeepSeekV3
from finseek.samples import Encoder, Sample
from finseek.train.data import ACTION, TokenSet
from finseek.train.engines.module import TensorBatch, adamw, tensors
from finseek.train.options import TrainOptions

ROWS = 8
OVERFIT_STEPS = 40
AFFORDABLE = 50_000_000


@dataclass(frozen=True)
class Finding:
    """One check: its name, whether it passed (None: left out), and what it saw."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class CheckReport:
    """All checks of a job, in their order."""

    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The checks that failed."""
        return tuple(finding for finding in self.findings if finding.passed is False)

    def raise_if_failed(self) -> None:
        """Raise the first failure.

        Raises:
            InputError: if any check failed.
        """
        if self.failed:
            more = f" (and {len(self.failed) - 1} more checks failed)" if len(self.failed) > 1 else ""
            raise InputError(f"check {self.failed[0].name}: {self.failed[0].detail}{more}")


def check_job(
    model: DeepSeekV3,
    samples: Sequence[Sample],
    tokens: TokenSet,
    encoder: Encoder,
    options: TrainOptions,
    total_steps: int,
    steps_per_epoch: int,
) -> CheckReport:
    """Run every check.

    Args:
        model: before its first step; it is copied, not changed.
        samples: the training samples.
        tokens: the same, encoded.
        encoder: how they were encoded.
        options: how the job trains.
        total_steps: optimiser steps of the job.
        steps_per_epoch: of which one epoch takes.
    """
    findings = [
        check_masks(samples, tokens, options),
        check_actions(samples, tokens, encoder),
        check_special_tokens(samples, tokens, encoder, model),
        _volume(tokens, total_steps, steps_per_epoch),
    ]
    if all(finding.passed is not False for finding in findings):
        batch = first_batch(tokens, options, model.config.pad_token_id or 0)
        checks = (check_labels, check_gradients, check_experts, check_overfit)
        for check in checks:
            findings.append(check(model, batch, options))
            if findings[-1].passed is False:
                break
    return CheckReport(tuple(findings))


def first_batch(tokens: TokenSet, options: TrainOptions, pad_id: int) -> TensorBatch:
    """A few samples spread over the file, as one pass."""
    rows = np.unique(np.linspace(0, len(tokens) - 1, ROWS).astype(np.int64))
    weights = tokens.token_weights(options.loss_weights, options.answer_only_loss)
    return tensors(tokens.collate(rows, weights, pad_id))


def check_masks(samples: Sequence[Sample], tokens: TokenSet, options: TrainOptions) -> Finding:
    """Every sample has a token whose loss counts."""
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
    return Finding("loss mask", True, f"all {len(tokens)} samples have tokens to learn")


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


def check_special_tokens(samples: Sequence[Sample], tokens: TokenSet, encoder: Encoder, model: DeepSeekV3) -> Finding:
    """One begin token, at the start; end and padding tokens that differ."""
    config = model.config
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if config.pad_token_id is not None and config.pad_token_id in ends:
        text = encoder.decode([config.pad_token_id])
        return Finding("special tokens", False, f"padding and end of sentence are the same token {text!r}: give two")
    begin = config.bos_token_id
    counts = np.add.reduceat((tokens.tokens == begin).astype(np.int64), tokens.starts[:-1])
    wrong = np.flatnonzero(counts > 1)
    if len(wrong):
        return Finding(
            "special tokens",
            False,
            f"{len(wrong)} samples begin more than once, {_name(samples, wrong[0])} has {counts[wrong[0]]} times the"
            f" token {encoder.decode([begin or 0])!r}: template and tokenizer both add it, or the text holds it",
        )
    return Finding("special tokens", True, f"begin {begin}, end {ends}, padding {config.pad_token_id}")


def _volume(tokens: TokenSet, total_steps: int, steps_per_epoch: int) -> Finding:
    share = tokens.truncated / len(tokens)
    return Finding(
        "volume",
        True,
        f"{len(tokens.tokens)} tokens an epoch, {share:.1%} of samples cut to train.seq_length,"
        f" {steps_per_epoch} steps an epoch, {total_steps} in all",
    )


def check_labels(model: DeepSeekV3, batch: TensorBatch, options: TrainOptions) -> Finding:
    """The loss of token t is that of the logits before it."""
    with _copy(model) as copied, torch.no_grad():
        logits = copied.eval()(batch.input_ids, batch.mask).logits.double()
        ours = -logits[:, :-1].log_softmax(-1).gather(-1, batch.input_ids[:, 1:, None])[..., 0]
        theirs = copied(batch.input_ids, batch.mask, batch.labels, return_logits=False).token_loss[:, 1:].double()
        counted = batch.weight[:, 1:] > 0
        worst = float((ours - theirs)[counted].abs().max())
    if worst > 1e-2:
        return Finding(
            "labels", False, f"the loss differs by {worst:.3g} nats from that of the next token: labels are shifted"
        )
    return Finding("labels", True, f"token t is predicted from the tokens before it (to {worst:.0e} nats)")


def check_gradients(model: DeepSeekV3, batch: TensorBatch, options: TrainOptions) -> Finding:
    """Every trainable parameter gets a gradient and moves in one step; no other does."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return Finding("gradients", False, "no parameter is trainable: the adapter matched no module")
    with _copy(model) as copied:
        before = {name: parameter.detach().clone() for name, parameter in copied.named_parameters()}
        trainable = [name for name, parameter in copied.named_parameters() if parameter.requires_grad]
        optimizer = adamw(copied, options)
        for _ in _bias_passes(copied):
            _loss(copied, batch).backward()
        silent = [n for n, p in copied.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
        optimizer.step()
        moved = {name for name, p in copied.named_parameters() if not torch.equal(p.detach(), before[name])}
    still, astray = [name for name in trainable if name not in moved], sorted(moved - set(trainable))
    for names, fault in ((silent, "get no gradient"), (still, "do not move"), (astray, "move though they are frozen")):
        if names:
            return Finding("gradients", False, f"{len(names)} parameters {fault}, the first is {names[0]}")
    frozen = len(before) - len(trainable)
    return Finding("gradients", True, f"{len(trainable)} parameters move, {frozen} are frozen and stay")


def check_experts(model: DeepSeekV3, batch: TensorBatch, options: TrainOptions) -> Finding:
    """Each routed expert, given tokens, has a gradient of its own."""
    routers = model.routers()
    if not routers:
        return Finding("experts", True, "the model has no routed experts")
    with _copy(model) as copied:
        for _ in _bias_passes(copied):
            _loss(copied, batch).backward()
        for layer, router in copied.routers().items():
            unreached = (router.load == 0).nonzero().flatten().tolist()
            if unreached:
                return Finding("experts", False, f"layer {layer}: no token can reach the experts {unreached[:8]}")
            for name, parameter in copied.model.layers[layer].mlp.experts.named_parameters():
                if not parameter.requires_grad or parameter.dim() != 3 or parameter.shape[0] != len(router.load):
                    continue
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                dead = (gradient.flatten(1).abs().sum(1) == 0).nonzero().flatten().tolist()
                if dead:
                    return Finding("experts", False, f"layer {layer}: {name} of experts {dead[:8]} gets no gradient")
    count = sum(len(router.load) for router in routers.values())
    return Finding("experts", True, f"all {count} routed experts can be reached")


def check_overfit(model: DeepSeekV3, batch: TensorBatch, options: TrainOptions) -> Finding:
    """The model learns one batch by heart at the job's own learning rate."""
    size = sum(parameter.numel() for parameter in model.parameters())
    if size > AFFORDABLE:
        return Finding("overfit", None, f"left out: {size / 1e6:.0f} M parameters are too many to try in seconds")
    with _copy(model) as copied:
        optimizer = adamw(copied, options)
        losses = []
        for step in range(OVERFIT_STEPS):
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * min(1.0, (step + 1) / 10)
                group["weight_decay"] = 0.0
            loss = _loss(copied, batch)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                break
            loss.backward()
            torch.nn.utils.clip_grad_norm_(copied.parameters(), options.gradient_clip_val or math.inf)
            optimizer.step()
            optimizer.zero_grad()
    first, last = losses[0], losses[-1]
    if not math.isfinite(last) or last > first:
        return Finding(
            "overfit",
            False,
            f"the loss of one batch goes from {first:.3g} to {last:.3g} in {len(losses)} steps at train.learning_rate"
            f" {options.learning_rate:g}: it explodes, lower the rate",
        )
    return Finding("overfit", True, f"the loss of one batch goes from {first:.3g} to {last:.3g} in {len(losses)} steps")


@contextmanager
def _copy(model: DeepSeekV3) -> Iterator[DeepSeekV3]:
    with torch.random.fork_rng(), torch.enable_grad():
        copied = copy.deepcopy(model).train()
        copied.update_router_bias(0.0)
        yield copied


def _bias_passes(model: DeepSeekV3) -> Iterator[None]:
    """As many passes as it takes to send all tokens to each group of K experts once."""
    routers = [router for router in model.routers().values() if router.topk_method == "noaux_tc"]
    if not routers:
        yield
        return
    original: list[Tensor] = [router.e_score_correction_bias.clone() for router in routers]
    chosen, experts = routers[0].K, len(original[0])
    for first in range(0, experts, chosen):
        for router in routers:
            router.e_score_correction_bias.zero_()[first : first + chosen] = 10.0
        yield
    for router, bias in zip(routers, original, strict=True):
        router.e_score_correction_bias.copy_(bias)


def _loss(model: DeepSeekV3, batch: TensorBatch) -> Tensor:
    loss: Tensor = model(batch.input_ids, batch.mask, batch.labels, loss_weights=batch.weight, return_logits=False).loss
    return loss


def _name(samples: Sequence[Sample], row: int) -> str:
    metadata = samples[row].metadata
    return f"{metadata.get('ticker', '')} {metadata.get('as_of_date', '')}".strip() or f"sample {row + 1}"
