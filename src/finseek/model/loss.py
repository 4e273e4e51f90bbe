"""The token-weighted cross-entropy of a position against the token `ahead` of it.

B batch   T tokens   t ≤ T positions   D hidden   V vocabulary
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = -100


class Targets(NamedTuple):
    """What is to be predicted.

    Attributes:
        labels: (B, T), −100 where no loss is wanted.
        segment_ids: (B, T); a label of another segment than the predicting position's is ignored.
        weights: (B, T) of the labels; default 1.
        denominator: what the weighted sum is divided by; default the sum of the weights that count, where 0/0, a batch
            without any label, is 0.
    """

    labels: Tensor
    segment_ids: Tensor | None = None
    weights: Tensor | None = None
    denominator: Tensor | float | None = None


class TokenLoss(NamedTuple):
    """The cross-entropy of a batch.

    Attributes:
        mean: Σ w·nll / denominator, the scalar to minimise, fp32 or wider.
        by_label: −log p of each label (B, T), detached, 0 where ignored.
        share: Σ_row w / denominator (B,), each row's part of the whole that the denominator stands for.
    """

    mean: Tensor
    by_label: Tensor
    share: Tensor


def next_token_loss(
    h: Tensor, head: nn.Module, targets: Targets, ahead: int, logits: Tensor | None = None
) -> TokenLoss:
    """Σ_i w_{i+a} · −log p(label_{i+a} | h_i) / denominator.

    Args:
        h: hidden states (B, t, D), t ≥ T − ahead.
        head: the projection to the vocabulary.
        targets: labels and weights.
        ahead: a; 1 for the next token.
        logits: head(h) where it is at hand.
    """
    label, segments = targets.labels[:, ahead:], targets.segment_ids
    n = label.shape[1]
    if segments is not None:
        label = label.masked_fill(segments[:, ahead:] != segments[:, :n], IGNORED)
    logits = head(h[:, :n]) if logits is None else logits[:, :n]
    wide = torch.promote_types(logits.dtype, torch.float32)
    nll = F.cross_entropy(logits.flatten(0, 1).to(wide), label.flatten(), ignore_index=IGNORED, reduction="none")
    nll = nll.view(label.shape)
    w = (label != IGNORED).to(wide)
    w = w if targets.weights is None else w * targets.weights[:, ahead:].to(wide)
    total = w.sum().clamp_min(torch.finfo(wide).tiny) if targets.denominator is None else targets.denominator
    return TokenLoss((nll * w).sum() / total, F.pad(nll.detach(), (ahead, 0)), w.sum(dim=1) / total)
