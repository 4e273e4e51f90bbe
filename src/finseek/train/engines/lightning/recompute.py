"""Activation checkpointing (arXiv 1604.06174): a layer keeps its input alone and is computed again when needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from finseek.model import DeepSeekV3


def recompute_layers(model: DeepSeekV3) -> None:
    """Let every layer that this process holds be computed again in the backward pass."""
    for block in model.model.layers:
        if next(block.parameters(), None) is not None:
            block.forward = partial(
                checkpoint, block.forward, use_reentrant=False, context_fn=partial(_contexts, block)
            )


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _uncounted(block)


@contextmanager
def _uncounted(block: nn.Module) -> Iterator[None]:
    """The second time, the router does not count its tokens again."""
    if not block.is_moe:
        yield
        return
    router = block.mlp.gate
    router.count = lambda *choice: None
    try:
        yield
    finally:
        del router.count
