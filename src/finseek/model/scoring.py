"""Log-probabilities of given continuations on the latent cache.

B prompts   M continuations of them all   T tokens   V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from finseek.core.errors import InputError
from finseek.model.cache import Cache, advance
from finseek.model.generate import evaluating

if TYPE_CHECKING:
    from finseek.model.deepseek import DeepSeekV3


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
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size} must be at least 1")
    scores: list[np.ndarray] = [np.empty(0)] * len(prompts)
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with evaluating(model):
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
    tokens, padding = (part.to(device) for part in _pad(prompts, left=True))
    cache = Cache.empty(model, len(prompts), tokens.shape[1], padding)
    h = advance(model, cache, tokens, last=True)

    owner = torch.tensor([i for i, group in enumerate(continuations) for _ in group], dtype=torch.int64, device=device)
    if not len(owner):
        return [np.empty(0) for _ in prompts]
    target, ignored = (part.to(device) for part in _pad([c for group in continuations for c in group], left=False))
    h, more = h[owner], target.shape[1] - 1
    if more:
        latents, padding = F.pad(cache.latents[:, owner], (0, 0, 0, more)), F.pad(padding[owner], (0, more))
        h = torch.cat([h, advance(model, Cache(latents, padding, cache.length), target[:, :-1])], dim=1)
    log_p = model.lm_head(h).float().log_softmax(dim=-1).gather(2, target[..., None]).squeeze(-1)
    total = log_p.double().masked_fill(ignored, 0.0).sum(dim=1).cpu().numpy()
    return np.split(total, np.cumsum([len(group) for group in continuations])[:-1])


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
