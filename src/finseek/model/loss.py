"""The token-weighted cross-entropy of a position against the token `ahead` of it.

B batch   T tokens   t ≤ T positions   N = B·t   D hidden   V vocabulary
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = -100
CHUNK = {"cpu": 2**20, "cuda": 2**28}  # logits held at once, by device: a CPU's cache, else 1 GiB in fp32


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
    wide = torch.promote_types(h.dtype if logits is None else logits.dtype, torch.float32)
    w = (label != IGNORED).to(wide)
    w = w if targets.weights is None else w * targets.weights[:, ahead:].to(wide)
    total = w.sum().clamp_min(torch.finfo(wide).tiny) if targets.denominator is None else targets.denominator
    w = w / total
    if logits is None and torch.is_grad_enabled() and type(head) is nn.Linear and head.bias is None:
        flat = h[:, :n].flatten(0, 1), head.weight, label.flatten(), w.flatten()
        mean, nll = LinearCrossEntropy.apply(*flat)
    else:
        z = head(h[:, :n]) if logits is None else logits[:, :n]
        nll = F.cross_entropy(z.flatten(0, 1).to(wide), label.flatten(), ignore_index=IGNORED, reduction="none")
        mean = (nll * w.flatten()).sum()
    return TokenLoss(mean, F.pad(nll.detach().view(label.shape), (ahead, 0)), w.sum(dim=1))


class LinearCrossEntropy(torch.autograd.Function):
    """Σ_i w_i · −log softmax(h_i Wᵀ)_{label_i} and its terms, without ever holding all (N, V) logits.

    The gradient of a chunk's logits, w ∘ (softmax − onehot), is at hand as soon as the chunk is, so the products with W
    and h are made in the forward pass and only scaled in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, label: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D), (V, D), (N,), (N,) -> the sum and −log p (N,), 0 where the label is ignored."""
        dh, dweight = torch.empty_like(h), torch.zeros_like(weight, dtype=w.dtype)  # many chunks add up: not in bf16
        nll = torch.zeros_like(w)
        rows = max(CHUNK.get(h.device.type, CHUNK["cuda"]) // len(weight), 64)
        for start in range(0, len(h), rows):
            c = slice(start, start + rows)
            log_p = (h[c] @ weight.T).to(w.dtype).log_softmax(dim=-1)
            target = label[c].clamp_min(0)[:, None]
            nll[c] = -log_p.gather(1, target).squeeze(1) * (label[c] != IGNORED)
            dz = log_p.exp_().scatter_add_(1, target, torch.full_like(target, -1, dtype=w.dtype))
            dz = dz.mul_(w[c, None]).to(h.dtype)
            dh[c] = dz @ weight
            dweight += dz.T @ h[c]
        ctx.save_for_backward(dh, dweight.to(weight.dtype))
        ctx.mark_non_differentiable(nll)
        return (nll * w).sum(), nll

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Scale what the forward pass has made."""
        dh, dweight = ctx.saved_tensors
        return dh * grad.to(dh.dtype), dweight * grad.to(dweight.dtype), None, None
