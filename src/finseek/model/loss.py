"""The token-weighted cross-entropy of a position against the token `ahead` of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = -100


def next_token_loss(
    h: Tensor,
    head: nn.Module,
    labels: Tensor,
    ahead: int,
    segment_ids: Tensor | None = None,
    weights: Tensor | None = None,
    denominator: Tensor | float | None = None,
    logits: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Σ_i w_{i+a} · −log p(label_{i+a} | h_i) / denominator.

    Args:
        h: hidden states (B, t, D), t ≥ T − ahead.
        head: the projection to the vocabulary.
        labels: (B, T), −100 where no loss is wanted.
        ahead: a; 1 for the next token.
        segment_ids: (B, T); a label of another segment than position i's is ignored.
        weights: (B, T) of the labels.
        denominator: default the sum of the weights that count; 0/0, a batch without any label, gives 0.
        logits: head(h) where it is at hand.

    Returns:
        The loss, fp32 or wider, and −log p by label (B, T), detached, 0 where ignored.
    """
    target = labels[:, ahead:]
    n = target.shape[1]
    if segment_ids is not None:
        target = target.masked_fill(segment_ids[:, ahead:] != segment_ids[:, :n], IGNORED)
    logits = head(h[:, :n]) if logits is None else logits[:, :n]
    wide = torch.promote_types(logits.dtype, torch.float32)
    nll = F.cross_entropy(logits.flatten(0, 1).to(wide), target.flatten(), ignore_index=IGNORED, reduction="none")
    nll = nll.view(target.shape)
    w = (target != IGNORED).to(wide)
    w = w if weights is None else w * weights[:, ahead:].to(wide)
    denominator = w.sum().clamp_min(torch.finfo(wide).tiny) if denominator is None else denominator
    return (nll * w).sum() / denominator, F.pad(nll.detach(), (ahead, 0))
