"""The latent cache of decoding.

B rows   T new tokens   S tokens in the cache   L layers   R+r numbers a token and layer
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from finseek.model.attention import LatentCache
from finseek.model.context import Context

if TYPE_CHECKING:
    from finseek.model.deepseek import DeepSeekV3


TOGETHER = {"cpu": 2048}  # tokens of a prompt that run together, by device


class Latents(Protocol):
    """What the layers keep of the tokens seen so far."""

    def layer(self, layer: int) -> LatentCache:
        """The part of one layer."""


class Cache:
    """Latents [c^KV ; k^R] of the tokens seen so far.

    Attributes:
        latents: (L, B, capacity, R+r), by layer; `mtp` layers may follow the trunk's.
        padding: slots that are never seen, bool (B, capacity), or None.
        length: slots in use.
    """

    def __init__(self, latents: Tensor, padding: Tensor | None = None, length: int = 0) -> None:
        self.latents, self.padding, self.length = latents, padding, length

    @classmethod
    def empty(cls, model: DeepSeekV3, batch: int, capacity: int, padding: Tensor | None = None, mtp: int = 0) -> Cache:
        """Room for `capacity` tokens of each row; `padding` (B, ≤ capacity) marks the first slots."""
        config, weight = model.config, model.lm_head.weight
        width = config.kv_lora_rank + config.qk_rope_head_dim
        shape = (config.num_hidden_layers + mtp, batch, capacity, width)
        if padding is not None:
            padding = F.pad(padding, (0, capacity - padding.shape[1]))
        return cls(torch.zeros(shape, dtype=weight.dtype, device=weight.device), padding)

    def layer(self, layer: int, start: int | None = None) -> LayerCache:
        """The part of one layer, to be written from slot `start` on (default: the next free one)."""
        return LayerCache(self.latents[layer], self.length if start is None else start)

    def rows(self, rows: slice) -> Cache:
        """The part of some rows: the same memory."""
        return Cache(self.latents[:, rows], length=self.length)

    def context(self, start: int, T: int) -> Context:
        """Positions of the T tokens in the slots from `start` on, and whom they see; padding sees at least itself."""
        device, padding = self.latents.device, self.padding
        query = torch.arange(start, start + T, device=device)
        if padding is None:
            mask = None if start == 0 or T == 1 else causal(query, start + T)
            return Context(query[None], mask)
        mask = causal(query, start + T) & ~padding[:, None, None, : start + T]
        itself = torch.arange(start + T, device=device) == query[:, None]
        return Context((query - padding.sum(dim=1, keepdim=True)).clamp_min(0), mask | itself)


def causal(query: Tensor, S: int) -> Tensor:
    """Which of S slots the slots `query` (T,) see, bool (1, 1, T, S)."""
    return (torch.arange(S, device=query.device) <= query[:, None])[None, None]


class LayerCache:
    """One layer's part of a cache, as the attention sees it."""

    def __init__(self, latents: Tensor, start: int) -> None:
        self.latents, self.start = latents, start

    @property
    def is_empty(self) -> bool:
        """Whether no token was seen before this call."""
        return self.start == 0

    def append(self, latents: Tensor) -> Tensor:
        """Store those of new tokens (B, T, R+r); return all up to them (B, S, R+r)."""
        end = self.start + latents.shape[1]
        self.latents[:, self.start : end] = latents
        return self.latents[:, :end]


def advance(model: DeepSeekV3, cache: Cache, tokens: Tensor, last: bool = False) -> Tensor:
    """Run new tokens (B, T) on top of the cache, which grows by them: (B, T, D) after the final norm.

    With `last` the last token's alone, (B, 1, D), which spares a prompt most of the last layer.

    Long prompts go a few rows at a time, so that what a layer makes of them stays small, and on a CPU near.
    """
    B, T = tokens.shape
    rows = max(1, TOGETHER.get(tokens.device.type, 16384) // T)
    parts = [slice(first, min(first + rows, B)) for first in range(0, B, rows)]
    context = cache.context(cache.length, T)
    hs = [model.model(tokens[part], context.rows(part), cache.rows(part), last)[0] for part in parts]
    cache.length += T
    return hs[0] if len(hs) == 1 else torch.cat(hs)
