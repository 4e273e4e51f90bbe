"""Checks of the model before its first step: labels, gradients, experts, and one batch learned by heart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from finseek.train.check.probe import (
    Subject,
    affordable,
    bias_passes,
    borrowed,
    counting,
    expert_modules,
    passes_of,
    router_biases,
    size_of,
    wake_adapters,
)
from finseek.train.engines.batches import TensorBatch
from finseek.train.engines.optimizer import adamw
from finseek.train.options import TrainOptions

STEPS = 40  # at the job's own rate, which must not explode
MEMORISE = 160  # more of them at a rate that learns by heart
BY_HEART, ADAPTED_BY_HEART = 5e-3, 2e-2
NEAR = 0.1  # of what there was to lose: "near zero"
KEPT = 50_000_000  # frozen values that are compared one by one


@dataclass(frozen=True)
class Finding:
    """One check: its name, whether it passed (None: left out), and what it saw."""

    name: str
    passed: bool | None
    detail: str


def check_labels(subject: Subject, batch: TensorBatch, options: TrainOptions) -> Finding:
    """The loss of token t is that of the logits before it."""
    if not affordable(subject.model, batch, 2):
        return _left_out("labels", subject.model)
    with borrowed(subject.model), torch.no_grad():
        subject.model.eval()
        logits = subject.logits(batch)[:, :-1].double()
        ours = -logits.log_softmax(-1).gather(-1, batch.input_ids[:, 1:, None])[..., 0]
        theirs = subject.token_loss(batch)[:, 1:].double()
        counted = batch.weight[:, 1:] > 0
        worst = float((ours - theirs)[counted].abs().max())
    tolerance = 1e-2 if logits.dtype is torch.float32 else 0.1
    if worst > tolerance:
        return Finding(
            "labels", False, f"the loss differs by {worst:.3g} nats from that of the next token: labels are shifted"
        )
    return Finding("labels", True, f"token t is predicted from the tokens before it (to {worst:.0e} nats)")


def check_gradients(subject: Subject, batch: TensorBatch, options: TrainOptions) -> Finding:
    """Every parameter that is meant to learn gets a gradient and moves in one step; no other does."""
    model = subject.model
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = {name: parameter for name, parameter in model.named_parameters() if not parameter.requires_grad}
    if options.lora is not None and not any(".lora_" in name for name in trainable):
        return Finding("gradients", False, "no parameter is trainable: the adapter matched no module")
    if not trainable:
        return Finding("gradients", False, "no parameter is trainable: all of them are frozen")
    astray = [name for name in trainable if options.lora and ".lora_" not in name and "bias" not in name]
    for names, fault in (
        ([] if options.lora else list(frozen), "are frozen though train.lora is null"),
        (astray, "are trained beside the adapters"),
    ):
        if names:
            return Finding("gradients", False, f"{len(names)} parameters {fault}, the first is {names[0]}")
    if not affordable(model, batch, passes_of(model)):
        return _left_out("gradients", model)
    small = sum(parameter.numel() for parameter in frozen.values()) <= KEPT
    with borrowed(model):
        wake_adapters(trainable)
        watched = trainable | (frozen if small else {})
        before = {name: parameter.detach().clone() for name, parameter in watched.items()}
        optimizer = adamw(model, options)
        for _ in bias_passes(model):
            subject.loss(batch).backward()
        silent = [name for name, p in trainable.items() if p.grad is None or not p.grad.any()]
        optimizer.step()
        moved = {name for name, parameter in watched.items() if not torch.equal(parameter.detach(), before[name])}
    still, loose = [name for name in trainable if name not in moved], sorted(moved & frozen.keys())
    for names, fault in ((silent, "get no gradient"), (still, "do not move"), (loose, "move though they are frozen")):
        if names:
            return Finding("gradients", False, f"{len(names)} parameters {fault}, the first is {names[0]}")
    return Finding("gradients", True, f"{len(trainable)} parameters move, {len(frozen)} are frozen and stay")


def check_experts(subject: Subject, batch: TensorBatch, options: TrainOptions) -> Finding:
    """Each routed expert, given tokens, has a gradient of its own."""
    model = subject.model
    layers = expert_modules(model)
    if not layers:
        return Finding("experts", True, "the model has no routed experts")
    if not affordable(model, batch, passes_of(model)):
        return _left_out("experts", model)
    forced = bool(router_biases(model))
    with borrowed(model), counting(layers) as reached:
        for _ in bias_passes(model):
            subject.loss(batch).backward()
        for name, module in layers.items():
            unreached = [e for e in range(len(module.gate_up_proj)) if e not in reached[name]]
            if unreached and forced:
                return Finding("experts", False, f"{name}: no token can reach the experts {unreached[:8]}")
            for weight, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad or parameter.dim() != 3:
                    continue
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                silent = (gradient.flatten(1).abs().sum(1) == 0).nonzero().flatten().tolist()
                dead = [expert for expert in silent if expert in reached[name]]
                if dead:
                    return Finding(
                        "experts", False, f"{name}: {weight} of experts {dead[:8]} gets no gradient: frozen or dead"
                    )
    count = sum(len(module.gate_up_proj) for module in layers.values())
    if not forced:
        seen = sum(map(len, reached.values()))
        return Finding(
            "experts", True, f"{seen} of {count} routed experts got tokens of {len(batch.input_ids)} samples"
        )
    return Finding("experts", True, f"all {count} routed experts can be reached")


def check_overfit(subject: Subject, batch: TensorBatch, options: TrainOptions) -> Finding:
    """The job's own learning rate does not explode, and the model learns one batch by heart."""
    model = subject.model
    if not affordable(model, batch, STEPS):
        return _left_out("overfit", model)
    floor = least_loss(batch)
    with borrowed(model):
        losses = _descend(subject, batch, options, STEPS, lambda step: options.learning_rate * min(1, (step + 1) / 10))
    first, last = losses[0], losses[-1]
    if not math.isfinite(last) or last > first:
        return Finding(
            "overfit",
            False,
            f"the loss of one batch goes from {first:.3g} to {last:.3g} in {len(losses)} steps at train.learning_rate"
            f" {options.learning_rate:g}: it explodes, lower the rate",
        )
    near = floor + NEAR * (first - floor)
    best = min(losses)
    if best > near and affordable(model, batch, MEMORISE):
        rate = ADAPTED_BY_HEART if options.lora else BY_HEART
        with borrowed(model):
            best = min(best, *_descend(subject, batch, options, MEMORISE, lambda step: rate, near))
    told = f"the loss of one batch goes from {first:.3g} to {best:.3g}, of at best {floor:.3g}"
    if best <= near:
        return Finding("overfit", True, told)
    if best > first - 0.02 * (first - floor):
        return Finding("overfit", False, f"{told}: the model does not learn it, though parameters move")
    return Finding("overfit", None, f"{told}: it falls, and would need more steps than there is time for here")


def least_loss(batch: TensorBatch) -> float:
    """Mean nats, by weight, that even perfect memory leaves: rows with equal beginnings go on differently."""
    ids, weight = batch.input_ids.cpu().numpy(), batch.weight.cpu().numpy().astype(np.float64)
    nats, total = 0.0, float(weight.sum())
    groups = np.zeros(len(ids), dtype=np.int64)
    for t in range(1, ids.shape[1]):
        _, groups = np.unique(np.stack([groups, ids[:, t - 1]]), axis=1, return_inverse=True)
        _, pairs = np.unique(np.stack([groups, ids[:, t]]), axis=1, return_inverse=True)
        by_pair, by_group = np.bincount(pairs, weight[:, t]), np.bincount(groups, weight[:, t])
        counted = weight[:, t] > 0
        share = by_pair[pairs[counted]] / by_group[groups[counted]]
        nats -= float((weight[counted, t] * np.log(share)).sum())
    return nats / total


def _descend(
    subject: Subject,
    batch: TensorBatch,
    options: TrainOptions,
    steps: int,
    rate: Callable[[int], float],
    until: float = -math.inf,
) -> list[float]:
    """Losses of one batch, step by step, without decay."""
    optimizer, losses = adamw(subject.model, options), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"], group["weight_decay"] = rate(step), 0.0
        loss = subject.loss(batch)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]) or losses[-1] <= until:
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(subject.model.parameters(), options.gradient_clip_val or math.inf)
        optimizer.step()
        optimizer.zero_grad()
    return losses


def _left_out(name: str, model: nn.Module) -> Finding:
    return Finding(name, None, f"left out: {size_of(model) / 1e6:.0f} M parameters are too many to try in seconds")
