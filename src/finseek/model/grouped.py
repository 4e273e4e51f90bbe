"""Linear maps of rows sorted by expert, and the gathers around them.

N tokens   K experts a token   M = N·K rows   E experts   D hidden   I width of an expert
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def as_autocast(*operands: Tensor) -> tuple[Tensor, ...]:
    """The operands in the dtype of an autocast region, if this is one: `grouped_mm` is not on autocast's own list."""
    device = operands[0].device.type
    if not torch.is_autocast_enabled(device):
        return operands
    return tuple(operand.to(torch.get_autocast_dtype(device)) for operand in operands)


def can_group(*operands: Tensor) -> bool:
    """Whether `grouped_mm` takes these operands: fp32 or bf16 of one kind, rows of whole 16-byte words."""
    dtypes = {t.dtype for t in operands}
    return (
        dtypes in ({torch.float32}, {torch.bfloat16})
        and all(
            t.shape[-1] * t.element_size() % 16 == 0 and t.shape[-2] * t.element_size() % 16 == 0 for t in operands[1:]
        )
        and operands[0].shape[0] > 0
    )


def grouped_linear(rows: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """rows_e W_eᵀ for each expert e in one kernel, no host synchronisation: (M, in), (E, out, in) -> (M, out)."""
    return F.grouped_mm(rows, weight.mT, offs=counts.cumsum(0).to(torch.int32))


def loop_linear(rows: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """The same, one expert at a time: the reference, and the path of dtypes that no kernel takes."""
    parts = zip(rows.split(counts.tolist()), weight.unbind(), strict=True)
    return torch.cat([F.linear(part, weight_e) for part, weight_e in parts])


LINEARS = {"grouped": grouped_linear, "loop": loop_linear}


def inverse_of(order: Tensor) -> Tensor:
    """The permutation that undoes `order` (M,)."""
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


class Dispatch(torch.autograd.Function):
    """x (N, D) -> (M, D): row m is the token of the m-th smallest expert number. Gathers both ways: no atomics."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        """As the class says."""
        ctx.save_for_backward(inverse)
        ctx.N, ctx.K = len(x), len(order) // max(len(x), 1) or 1
        return x.index_select(0, order // ctx.K)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Its gradient."""
        (inverse,) = ctx.saved_tensors
        return grad.index_select(0, inverse).view(ctx.N, ctx.K, grad.shape[1]).sum(dim=1), None, None


class Combine(torch.autograd.Function):
    """Rows (M, D) and weights (N, K) -> each token's weighted sum (N, D), the inverse of `Dispatch`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        """As the class says."""
        ctx.save_for_backward(rows, weights, order, inverse)
        N, K = weights.shape
        return torch.bmm(weights[:, None], rows.index_select(0, inverse).view(N, K, rows.shape[1])).squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Its gradient."""
        rows, weights, order, inverse = ctx.saved_tensors
        N, K = weights.shape
        by_row = grad.index_select(0, order // K)
        grad_weights = (by_row * rows).sum(dim=-1).index_select(0, inverse).view(N, K)
        return by_row.mul_(weights.flatten().index_select(0, order)[:, None]), grad_weights, None, None


class SwiGLU(torch.autograd.Function):
    """[gate, up] (M, 2I) -> silu(gate) · up (M, I); saves its input alone and writes one contiguous gradient."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        """As the class says."""
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Its gradient."""
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        out = torch.empty_like(gate_up)
        grad_gate, grad_up = out.chunk(2, dim=-1)
        torch.mul(grad, F.silu(gate), out=grad_up)
        grad_gate.copy_(torch.ops.aten.silu_backward(grad * up, gate))
        return out
