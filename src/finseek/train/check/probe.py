"""What the checks before training do with a model, and put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from finseek.model import DeepSeekV3
from finseek.train.engines.batches import TensorBatch

OPERATIONS = {"cpu": 3e12, "cuda": 3e15}  # of all passes of a check: seconds


@dataclass(frozen=True)
class Subject:
    """What the checks ask of an engine's model.

    Attributes:
        model: before its first step.
        loss: of a batch as in training, with its graph: the mean over tokens by their weights.
        token_loss: nats of each token as the loss counts them, (B, T), 0 at t = 0; where the weight is 0, anything.
        logits: (B, T, V).
        begin: token at the start of a sample, if there is one.
        ends: tokens at its end.
        pad: token of padding; None where padding is known by its place alone.
    """

    model: nn.Module
    loss: Callable[[TensorBatch], Tensor]
    token_loss: Callable[[TensorBatch], Tensor]
    logits: Callable[[TensorBatch], Tensor]
    begin: int | None
    ends: tuple[int, ...]
    pad: int | None

    @classmethod
    def of(cls, model: DeepSeekV3) -> Subject:
        """Finseek's own model."""
        config = model.config
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]

        def run(batch: TensorBatch, **given: Any) -> Any:
            return model(batch.input_ids, batch.mask, batch.labels, return_logits=False, **given)

        return cls(
            model,
            lambda batch: run(batch, loss_weights=batch.weight).loss,
            lambda batch: run(batch).token_loss,
            lambda batch: model(batch.input_ids, batch.mask).logits,
            config.bos_token_id,
            tuple(end for end in ends if end is not None),
            config.pad_token_id,
        )


@contextmanager
def borrowed(model: nn.Module) -> Iterator[None]:
    """In training mode; afterwards weights, buffers, gradients, mode and generators are what they were."""
    kept = {name: each.detach().clone() for name, each in _changeable(model)}
    was = {module: module.training for module in model.modules()}
    with torch.random.fork_rng(), torch.enable_grad():
        model.train()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, each in _changeable(model):
                    each.copy_(kept[name])
            for parameter in model.parameters():
                parameter.grad = None
            for module, training in was.items():
                module.training = training


def _changeable(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from ((name, each) for name, each in model.named_parameters() if each.requires_grad)
    yield from model.named_buffers()


def wake_adapters(trainable: dict[str, nn.Parameter]) -> None:
    """B is 0 before the first step, so that A has no gradient yet."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in trainable.items():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)


def expert_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that hold stacked experts, by name; called with the tokens and the experts chosen for each."""
    return {
        name: module
        for name, module in model.named_modules()
        if any(own == "gate_up_proj" and each.dim() == 3 for own, each in module.named_parameters(recurse=False))
    }


@contextmanager
def counting(layers: dict[str, nn.Module]) -> Iterator[dict[str, set[int]]]:
    """Which experts got tokens while this is open."""
    reached: dict[str, set[int]] = {name: set() for name in layers}

    def note(name: str) -> Callable[..., None]:
        return lambda module, given: reached[name].update(given[1].unique().tolist())

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in layers.items()]
    try:
        yield reached
    finally:
        for hook in hooks:
            hook.remove()


def router_biases(model: nn.Module) -> list[Tensor]:
    """The biases that choose experts, of routers that have one."""
    return [each for name, each in model.named_buffers() if name.endswith(".e_score_correction_bias")]


def passes_of(model: nn.Module) -> int:
    """Passes that :func:`bias_passes` makes."""
    biases = router_biases(model)
    return -(-len(biases[0]) // _chosen(model)) if biases else 1


def _chosen(model: nn.Module) -> int:
    chosen: int = model.config.num_experts_per_tok
    return chosen


def bias_passes(model: nn.Module) -> Iterator[None]:
    """As many passes as it takes to send all tokens to each group of K experts once."""
    biases = router_biases(model)
    if not biases:
        yield
        return
    original = [bias.clone() for bias in biases]
    for first in range(0, len(original[0]), _chosen(model)):
        for bias in biases:
            bias.zero_()[first : first + _chosen(model)] = 10.0
        yield
    for bias, value in zip(biases, original, strict=True):
        bias.copy_(value)


def affordable(model: nn.Module, batch: TensorBatch, passes: int) -> bool:
    """Whether so many passes forward and backward take seconds, and not minutes."""
    device = next(model.parameters()).device.type
    return 6.0 * size_of(model) * batch.input_ids.numel() * passes <= OPERATIONS.get(device, OPERATIONS["cuda"])


def size_of(model: nn.Module) -> int:
    """Number of its values."""
    return sum(parameter.numel() for parameter in model.parameters())
