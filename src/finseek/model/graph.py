"""A decoding step of fixed shapes, which a GPU replays as one CUDA graph: no kernel waits for Python.

B rows   S slots of the cache, written or not   L layers   R+r numbers a token and layer   V vocabulary
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from finseek.model.cache import Cache
from finseek.model.context import Context
from finseek.model.experts import RoutedExperts
from finseek.model.grouped import can_group

if TYPE_CHECKING:
    from finseek.model.deepseek import DeepSeekV3

WARM_UP = 2  # eager steps before the capture: kernels choose themselves and allocate


def can_record(model: DeepSeekV3) -> bool:
    """Whether nothing in a step waits for the host: bf16 weights that the grouped kernels of a Hopper or later take."""
    weight = model.lm_head.weight
    if not weight.is_cuda or weight.dtype != torch.bfloat16 or torch.cuda.get_device_capability(weight.device) < (9, 0):
        return False
    experts = [module for module in model.modules() if isinstance(module, RoutedExperts)]
    return all(
        e.exchange is None and can_group(e.down_proj[0], e.gate_up_proj, e.down_proj) for e in experts
    )  # experts elsewhere are asked by the host


class FixedStep:
    """Tokens (B, 1) -> logits (B, V) on top of a cache, again and again; all S slots are read, the unwritten unseen.

    The slot in which a token goes is a tensor, so that a recorded step goes on from where the last one stood.
    """

    def __init__(self, model: DeepSeekV3, cache: Cache) -> None:
        _, B, S, _ = cache.latents.shape
        self.model, self.latents, self.padding = model, cache.latents, cache.padding
        device = self.latents.device
        self.tokens = torch.zeros(B, 1, dtype=torch.int64, device=device)
        self.slot = torch.full((1,), cache.length, device=device)
        self.slots = torch.arange(S, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, tokens: Tensor) -> Tensor:
        """The next step."""
        self.tokens.copy_(tokens)
        if self.graph is None:
            return self.run()
        self.graph.replay()
        return self.logits

    def run(self) -> Tensor:
        """The step on `self.tokens`, kernel by kernel."""
        h, _ = self.model.model(self.tokens, self.context(), self)
        self.slot += 1
        return self.model.lm_head(h[:, -1])

    def record(self) -> FixedStep:
        """Capture the step as a CUDA graph; what it writes while warming up is overwritten by the first real step."""
        start = self.slot.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self.run()
                self.slot.copy_(start)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.logits = self.run()
        self.graph = graph
        return self

    def context(self) -> Context:
        """Position of the new token, and whom it sees, without asking the device where it stands."""
        seen = (self.slots <= self.slot)[None, None, None]
        if self.padding is None:
            return Context(self.slot[None], seen)
        return Context(self.slot - self.padding.sum(dim=1, keepdim=True), seen & ~self.padding[:, None, None])

    def layer(self, layer: int) -> FixedLayer:
        """The cache of one layer."""
        return FixedLayer(self.latents[layer], self.slot)


class FixedLayer:
    """One layer's part of it, as the attention sees it."""

    is_empty = False

    def __init__(self, latents: Tensor, slot: Tensor) -> None:
        self.latents, self.slot = latents, slot

    def append(self, latents: Tensor) -> Tensor:
        """Store those of the new token (B, 1, R+r); return all slots (B, S, R+r)."""
        return self.latents.index_copy_(1, self.slot, latents)
