"""Exact causal attention by rows and blocks of queries, which is what a CPU trains fastest.

    B batch   H heads   T queries and keys   d, v widths of key and value   C queries of a block

A block of queries needs the keys up to its end only, so half of the products of T × T are never made; the scores of one
row's block, (H, C, T), stay in the cache. The backward pass reads (arXiv 2205.14135, appendix B.2), with p kept from
the forward pass for short rows and made again for long ones:

    p = softmax(s·q kᵀ)    dv = pᵀ do    ds = s·p ∘ (do vᵀ − rowsum(do ∘ o))    dq = ds k    dk = dsᵀ q
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK = 64
KEEP = 1024  # tokens up to which the weights p, T²/2 numbers a head, are kept: a fifth faster


class BlockwiseAttention(torch.autograd.Function):
    """Attention of q, k (B, H, T, d) and v (B, H, T, v) under a bool mask (B or 1, 1, T, T) or causality alone."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        """As the class says: (B, H, T, v)."""
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        kept: list[Tensor] = []
        o = q.new_empty(*q.shape[:-1], v.shape[-1])
        for this, seen in blocks(*q.shape):
            p = weights(q, k, mask, scale, this, seen)
            torch.bmm(p, v[seen], out=o[this])
            kept += [p] if q.shape[2] <= KEEP else []
        ctx.save_for_backward(q, k, v, mask, o, *kept)
        ctx.scale = scale
        return o

    @staticmethod
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Gradients of q, k and v."""
        q, k, v, mask, o, *kept = ctx.saved_tensors
        do = do.contiguous()
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        row = (do * o).sum(dim=-1, keepdim=True)
        for i, (this, seen) in enumerate(blocks(*q.shape)):
            p = kept[i] if kept else weights(q, k, mask, ctx.scale, this, seen)
            dv[seen] += p.mT @ do[this]
            ds = (do[this] @ v[seen].mT).sub_(row[this]).mul_(p).mul_(ctx.scale)
            torch.bmm(ds, k[seen], out=dq[this])
            dk[seen] += ds.mT @ q[this]
        return dq, dk, dv, None, None


Part = tuple[int, slice, slice]  # of a (B, H, T, …) tensor: one row, all heads, some tokens


def blocks(B: int, _: int, T: int, __: int) -> Iterator[tuple[Part, Part]]:
    """The queries of each block, and the keys that they may see."""
    for b in range(B):
        for start in range(0, T, BLOCK):
            end = min(start + BLOCK, T)
            yield (b, slice(None), slice(start, end)), (b, slice(None), slice(0, end))


def weights(q: Tensor, k: Tensor, mask: Tensor | None, scale: float, this: Part, seen: Part) -> Tensor:
    """softmax(s·q kᵀ) of a block's queries over the keys that they see: (H, C, end)."""
    (row, _, queries), (_, _, keys) = this, seen
    scores = (q[this] @ k[seen].mT).mul_(scale)
    if mask is None:
        C = queries.stop - queries.start
        ahead = torch.ones(C, C, dtype=torch.bool, device=q.device).triu_(1)
        scores[..., queries].masked_fill_(ahead, float("-inf"))
    else:
        scores.masked_fill_(~mask[row % len(mask), :, queries, keys], float("-inf"))
    return torch.softmax(scores, dim=-1, out=scores)
