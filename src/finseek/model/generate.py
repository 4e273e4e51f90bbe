"""Generation and scoring on the latent cache.

B rows   T new tokens   S tokens in the cache   L layers   R+r numbers a token and layer   V vocabulary
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from finseek.core.errors import InputError
from finseek.model.context import Context

if TYPE_CHECKING:
    from finseek.model.deepseek import DeepSeekV3


class Cache:
    """Latents [c^KV ; k^R] of the tokens seen so far, for all layers: (L, B, capacity, R+r)."""

    def __init__(self, latents: Tensor, length: int = 0) -> None:
        self.latents, self.length = latents, length

    @classmethod
    def empty(cls, model: DeepSeekV3, batch: int, capacity: int) -> Cache:
        """Room for `capacity` tokens of each row."""
        config, weight = model.config, model.lm_head.weight
        shape = (config.num_hidden_layers, batch, capacity, config.kv_lora_rank + config.qk_rope_head_dim)
        return cls(torch.zeros(shape, dtype=weight.dtype, device=weight.device))

    def layer(self, layer: int) -> LayerCache:
        """The part of one layer."""
        return LayerCache(self, layer)


class LayerCache:
    """One layer's part of a cache, as the attention sees it."""

    def __init__(self, cache: Cache, layer: int) -> None:
        self.cache, self.latents = cache, cache.latents[layer]

    @property
    def is_empty(self) -> bool:
        """Whether no token was seen before this call."""
        return self.cache.length == 0

    def append(self, latents: Tensor) -> Tensor:
        """Store those of new tokens (B, T, R+r); return all up to them (B, S, R+r)."""
        end = self.cache.length + latents.shape[1]
        self.latents[:, self.cache.length : end] = latents
        return self.latents[:, :end]


def advance(model: DeepSeekV3, cache: Cache, tokens: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:
    """Run new tokens (B, T) on top of the cache, which grows by them; padding (B, capacity) bool is never seen.

    Returns:
        Hidden states (B, T, D) after the final norm.
    """
    S, T = cache.length, tokens.shape[1]
    mask = None
    if padding is not None or (S and T > 1):
        query = torch.arange(S, S + T, device=tokens.device)[:, None]
        key = torch.arange(S + T, device=tokens.device)
        mask = (key <= query)[None]
        if padding is not None:
            mask = mask & ~padding[:, None, : S + T] | (key == query)
        mask = mask[:, None]
    h, _ = model.model(tokens, Context(positions, mask), cache)
    cache.length += T
    return h


@torch.inference_mode()
def generate(
    model: DeepSeekV3,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_token_ids: Collection[int] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue each row.

    Args:
        model: in evaluation mode or not; nothing is dropped out and no load is counted.
        input_ids: (B, T), padded on the left.
        attention_mask: (B, T), 0 for padding.
        max_new_tokens: at most so many.
        temperature: 0 takes the likeliest token, else logits are divided by it and one is drawn.
        top_k: draw among the k likeliest.
        top_p: draw among the likeliest that together hold this probability.
        stop_token_ids: a row ends with the first of them; default the config's eos. The rest of it is pad (or eos).
        generator: of the draws.

    Returns:
        (B, T + n), the prompt and n ≤ max_new_tokens new tokens.

    Raises:
        InputError: a value out of range, or padding on the right.
    """
    _check_sampling(temperature, top_k, top_p)
    padding = _left_padding(input_ids, attention_mask)
    stops, filler = _stops(model, stop_token_ids)
    B, T = input_ids.shape
    if max_new_tokens < 1:
        return input_ids
    stop_ids = torch.tensor(sorted(stops), device=input_ids.device)
    capacity = T + max_new_tokens
    lengths = torch.full((B, 1), T, device=input_ids.device)
    if padding is not None:
        lengths = lengths - padding.sum(dim=1, keepdim=True)
        padding = torch.nn.functional.pad(padding, (0, max_new_tokens))
    with counting_off(model):
        cache = Cache.empty(model, B, capacity)
        positions = (torch.arange(T, device=input_ids.device) - (T - lengths)).clamp_min(0)
        h = advance(model, cache, input_ids, positions, padding)
        finished = torch.zeros(B, 1, dtype=torch.bool, device=input_ids.device)
        new: list[Tensor] = []
        while True:
            token = pick(model.lm_head(h[:, -1]), temperature, top_k, top_p, generator)
            token = token.masked_fill(finished, filler)
            new.append(token)
            finished = finished | torch.isin(token, stop_ids)
            if len(new) == max_new_tokens or bool(finished.all()):
                return torch.cat([input_ids, *new], dim=1)
            h = advance(model, cache, token, lengths + len(new) - 1, padding)


def pick(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> Tensor:
    """A token of each row: (B, V) -> (B, 1)."""
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    logits = logits.float() / temperature
    if top_k is not None:
        kth = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if top_p is not None:
        ordered, index = logits.sort(dim=-1, descending=True)
        p = ordered.softmax(dim=-1)
        tail = p.cumsum(dim=-1) - p >= top_p  # what lies wholly beyond the mass; the first token never does
        logits = logits.masked_fill(torch.zeros_like(tail).scatter(1, index, tail), float("-inf"))
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)


@torch.inference_mode()
def score_continuations(
    model: DeepSeekV3,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
    batch_size: int = 16,
) -> list[np.ndarray]:
    """Summed log-probability of each continuation given its prompt, which is run once.

    Args:
        model: the model.
        prompts: token ids, at least one each.
        continuations: for each prompt, any number of continuations of at least one token.
        batch_size: prompts run together.

    Returns:
        For each prompt float64 (number of its continuations,).

    Raises:
        InputError: lengths that differ, an empty prompt or continuation.
    """
    if len(prompts) != len(continuations):
        raise InputError(f"{len(prompts)} prompts and {len(continuations)} lists of continuations must be as many")
    if not all(len(prompt) for prompt in prompts) or not all(len(c) for group in continuations for c in group):
        raise InputError("a prompt or a continuation is empty; each needs at least one token")
    scores: list[np.ndarray] = [np.empty(0)] * len(prompts)
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with counting_off(model):
        for start in range(0, len(by_length), batch_size):
            rows = by_length[start : start + batch_size]
            for row, score in zip(
                rows, _score_batch(model, [prompts[i] for i in rows], [continuations[i] for i in rows]), strict=True
            ):
                scores[row] = score
    return scores


def _score_batch(
    model: DeepSeekV3, prompts: list[Sequence[int]], continuations: list[Sequence[Sequence[int]]]
) -> list[np.ndarray]:
    device = model.lm_head.weight.device
    tokens, padding = _pad(prompts, left=True)
    tokens, padding = tokens.to(device), padding.to(device)
    T, lengths = tokens.shape[1], (~padding).sum(dim=1, keepdim=True)
    cache = Cache.empty(model, len(prompts), T)
    positions = (torch.arange(T, device=device) - (T - lengths)).clamp_min(0)
    h = advance(model, cache, tokens, positions, padding)[:, -1:]

    owner = torch.tensor([i for i, group in enumerate(continuations) for _ in group], dtype=torch.int64, device=device)
    if not len(owner):
        return [np.empty(0) for _ in prompts]
    target, ignored = _pad([c for group in continuations for c in group], left=False)
    target, ignored = target.to(device), ignored.to(device)
    n = target.shape[1]
    h = h[owner]
    if n > 1:
        latents = torch.nn.functional.pad(cache.latents[:, owner], (0, 0, 0, n - 1))
        shared = Cache(latents, length=T)
        positions = lengths[owner] + torch.arange(n - 1, device=device)
        padding = torch.nn.functional.pad(padding[owner], (0, n - 1))
        h = torch.cat([h, advance(model, shared, target[:, :-1], positions, padding)], dim=1)
    log_p = model.lm_head(h).float().log_softmax(dim=-1).gather(2, target[..., None]).squeeze(-1)
    total = log_p.double().masked_fill(ignored, 0.0).sum(dim=1).cpu().numpy()
    return np.split(total, np.cumsum([len(group) for group in continuations])[:-1])


class counting_off:
    """Evaluation mode for a while: no load is counted, and the mode before comes back."""

    def __init__(self, model: DeepSeekV3) -> None:
        self.model, self.was_training = model, model.training

    def __enter__(self) -> None:
        if self.was_training:
            self.model.eval()

    def __exit__(self, *_: object) -> None:
        if self.was_training:
            self.model.train()


def _pad(rows: list[Sequence[int]], left: bool) -> tuple[Tensor, Tensor]:
    """Rows as int64 (B, longest), and where they are padding, bool."""
    longest = max(len(row) for row in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.int64)
    padding = torch.ones(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        where = slice(longest - len(row), None) if left else slice(0, len(row))
        tokens[i, where] = torch.as_tensor(list(row))
        padding[i, where] = False
    return tokens, padding


def _left_padding(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor | None:
    if attention_mask is None or bool(attention_mask.all()):
        return None
    seen = attention_mask.bool()
    if attention_mask.shape != input_ids.shape or not bool((seen == seen.cummax(dim=1).values).all()):
        raise InputError("attention_mask: generation needs prompts padded on the left (zeros, then ones, in each row)")
    return ~seen


def _stops(model: DeepSeekV3, stop_token_ids: Collection[int] | None) -> tuple[set[int], int]:
    eos = model.config.eos_token_id
    default = set() if eos is None else {eos} if isinstance(eos, int) else set(eos)
    stops = default if stop_token_ids is None else set(stop_token_ids)
    pad = model.config.pad_token_id
    return stops, pad if pad is not None else min(default or stops or {0})


def _check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    if temperature < 0:
        raise InputError(f"temperature: {temperature} must be at least 0 (0 is greedy)")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k: {top_k} must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p: {top_p} must be in (0, 1]")
