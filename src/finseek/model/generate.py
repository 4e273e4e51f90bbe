"""Generation on the latent cache.

B rows   T tokens   V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from finseek.core.errors import InputError
from finseek.model.cache import Cache, advance
from finseek.model.context import check_tokens
from finseek.model.graph import FixedStep, can_record

if TYPE_CHECKING:
    from finseek.model.deepseek import DeepSeekV3

LOOK = {"cpu": 1}  # steps between two looks at whether all rows have ended, by device: a GPU's host should run ahead


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
    speculate: bool = False,
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
        speculate: let the first MTP module draft a token ahead, which the next step verifies: the same greedy tokens in
            fewer steps, where the rows' drafts are right together.

    Returns:
        (B, T + n), the prompt and n ≤ max_new_tokens new tokens.

    Raises:
        InputError: a value out of range, or padding on the right.
    """
    _check_sampling(temperature, top_k, top_p)
    check_tokens("input_ids", input_ids, model.config.vocab_size)
    padding = _left_padding(input_ids, attention_mask)
    stops, filler = _stops(model, stop_token_ids)
    B, T = input_ids.shape
    if max_new_tokens < 1 or B == 0:
        return input_ids
    if T == 0:
        raise InputError("input_ids: the prompts are empty; generation needs at least one token of each")
    if speculate and (temperature or not model.config.num_nextn_predict_layers):
        raise InputError("speculate: needs temperature 0 and a model with an MTP module (num_nextn_predict_layers ≥ 1)")
    stop_ids = torch.tensor(sorted(stops), device=input_ids.device)
    finished = torch.zeros(B, 1, dtype=torch.bool, device=input_ids.device)
    cache = Cache.empty(model, B, T + max_new_tokens + 1, padding, mtp=int(speculate))
    if speculate:
        tokens = speculative_tokens(model, cache, input_ids, finished)
    else:
        tokens = plain_tokens(model, cache, input_ids, lambda z: pick(z, temperature, top_k, top_p, generator))
    new: list[Tensor] = []
    ended: list[Tensor] = []
    look = LOOK.get(input_ids.device.type, 16)
    with evaluating(model):
        for token in tokens:
            new.append(token.masked_fill(finished, filler))
            finished |= torch.isin(new[-1], stop_ids)
            ended.append(finished.all())
            if len(new) == max_new_tokens or (len(new) % look == 0 and bool(ended[-1])):
                break
    used = int((~torch.stack(ended)).sum()) + 1  # what came after the last row had ended is no part of the answer
    return torch.cat([input_ids, *new[:used]], dim=1)


def plain_tokens(
    model: DeepSeekV3, cache: Cache, tokens: Tensor, choose: Callable[[Tensor], Tensor]
) -> Iterator[Tensor]:
    """Endless continuation of a prompt (B, T): each next token (B, 1), by `choose` from the logits (B, V)."""
    tokens = choose(model.lm_head(advance(model, cache, tokens, last=True)[:, -1]))
    yield tokens
    recorded = FixedStep(model, cache).record() if can_record(model) else None
    while True:
        tokens = choose(recorded(tokens) if recorded else model.lm_head(advance(model, cache, tokens)[:, -1]))
        yield tokens


def speculative_tokens(model: DeepSeekV3, cache: Cache, tokens: Tensor, finished: Tensor) -> Iterator[Tensor]:
    """The same greedy tokens in fewer steps: an MTP module guesses the token after the next, a step verifies both.

    A guess counts where it is right in all rows that are not `finished` (B, 1); else the cache forgets it.
    """
    (block, *_), layer = model.mtp_blocks(), model.config.num_hidden_layers
    h = advance(model, cache, tokens)
    token = model.lm_head(h[:, -1:]).argmax(dim=-1)
    ahead = torch.cat([tokens[:, 1:], token], dim=1)  # the token after each position of h
    while True:
        yield token
        start, t = cache.length - h.shape[1], h.shape[1]
        predicted, _ = block(h, model.model.embed_tokens(ahead), cache.context(start, t), cache.layer(layer, start))
        guess = model.lm_head(predicted[:, -1:]).argmax(dim=-1)
        h = advance(model, cache, torch.cat([token, guess], dim=1))
        ahead = model.lm_head(h).argmax(dim=-1)
        if bool(((ahead[:, :1] == guess) | finished).all()):
            yield guess
        else:
            cache.length -= 1
            h, ahead = h[:, :1], ahead[:, :1]
        token = ahead[:, -1:]


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


@contextmanager
def evaluating(model: DeepSeekV3) -> Iterator[None]:
    """Evaluation mode for a while: no load is counted, and the mode before comes back."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _left_padding(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor | None:
    if attention_mask is None:
        return None
    seen = attention_mask.bool()
    if seen.shape != input_ids.shape or not bool((seen == seen.cummax(dim=1).values).all()):
        raise InputError("attention_mask: generation needs prompts padded on the left (zeros, then ones, in each row)")
    if bool(seen.all()):
        return None
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
