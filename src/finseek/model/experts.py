"""Experts: SwiGLU (arXiv 2002.05202), one alone or E of them in stacked weights, and the mixture of both.

N tokens   K experts a token   M = N·K rows   E experts   D hidden   I width of an expert
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finseek.model.config import DeepSeekConfig
from finseek.model.router import Router, balance_loss

Compute = Callable[[Tensor, Tensor], Tensor]  # rows sorted by expert (M, D), rows of each expert (E,) -> (M, D)
Exchange = Callable[[Tensor, Tensor, Compute], Tensor]


class Expert(nn.Module):
    """SwiGLU: W_down (silu(W_gate x) · W_up x); also the dense layer and the shared experts."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) -> (…, D)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class RoutedExperts(nn.Module):
    """E experts as stacked weights; each token's K rows are sorted by expert, multiplied in groups, and summed.

    `implementation` is `grouped`, `loop` or `auto` (grouped where the dtype and the strides allow it). `exchange`, set
    by expert parallelism, takes the sorted rows to the processes that own their experts and back.
    """

    def __init__(self, config: DeepSeekConfig) -> None:
        super().__init__()
        E, D, width = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.E = E
        self.gate_up_proj = nn.Parameter(torch.empty(E, 2 * width, D))
        self.down_proj = nn.Parameter(torch.empty(E, D, width))
        self.implementation = "auto"
        self.exchange: Exchange | None = None

    def forward(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """x (N, D), choice (N, K), weights (N, K) -> Σ_k weight_k · expert_k(x), (N, D)."""
        choice = experts.flatten()
        order = choice.argsort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        counts = torch.zeros(self.E, dtype=torch.int64, device=x.device).scatter_add_(
            0, choice, torch.ones_like(choice)
        )
        rows = Dispatch.apply(x, order, inverse)
        rows = self.exchange(rows, counts, self.compute) if self.exchange else self.compute(rows, counts)
        return Combine.apply(rows, weights.to(rows.dtype), order, inverse)

    def compute(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Each expert on its own consecutive rows: (M, D), (E,) -> (M, D)."""
        gate_up, down = self.gate_up_proj, self.down_proj  # once: an adapter computes them on access
        linear = GROUPED_LINEAR[self.implementation]
        if self.implementation == "auto":
            linear = grouped_linear if can_group(rows, gate_up, down) else loop_linear
        return linear(SwiGLU.apply(linear(rows, gate_up, counts)), down, counts)


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


GROUPED_LINEAR = {"auto": loop_linear, "loop": loop_linear, "grouped": grouped_linear}


class Dispatch(torch.autograd.Function):
    """x (N, D) -> (M, D): row m is the token of the m-th smallest expert number. Gathers both ways: no atomics."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.N = x.shape[0]
        return x.index_select(0, order // (len(order) // max(ctx.N, 1)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return grad.index_select(0, inverse).view(ctx.N, -1, grad.shape[-1]).sum(dim=1), None, None


class Combine(torch.autograd.Function):
    """Rows (M, D) and weights (N, K) -> each token's weighted sum (N, D), the inverse of `Dispatch`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights, order, inverse)
        N, K = weights.shape
        return torch.bmm(weights[:, None], rows.index_select(0, inverse).view(N, K, -1)).squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        rows, weights, order, inverse = ctx.saved_tensors
        N, K = weights.shape
        by_row = grad.index_select(0, order // K)
        grad_weights = (by_row * rows).sum(dim=-1).index_select(0, inverse).view(N, K)
        return by_row.mul_(weights.flatten().index_select(0, order)[:, None]), grad_weights, None, None


class SwiGLU(torch.autograd.Function):
    """[gate, up] (M, 2I) -> silu(gate) · up (M, I); saves its input alone and writes one contiguous gradient."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        out = torch.empty_like(gate_up)
        grad_gate, grad_up = out.chunk(2, dim=-1)
        torch.mul(grad, F.silu(gate), out=grad_up)
        grad_gate.copy_(torch.ops.aten.silu_backward(grad * up, gate))
        return out


class MoE(nn.Module):
    """DeepSeekMoE (arXiv 2401.06066): the chosen routed experts plus the shared ones, which every token visits."""

    def __init__(self, config: DeepSeekConfig) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = RoutedExperts(config)
        shared = config.n_shared_experts * config.moe_intermediate_size
        self.shared_experts = Expert(config.hidden_size, shared) if shared else None
        self.alpha = config.aux_loss_alpha

    def forward(self, x: Tensor, counted: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Mix.

        Args:
            x: (B, T, D).
            counted: tokens that are no padding, bool (B, T); None: all.

        Returns:
            (B, T, D), and in training with α > 0 the balance loss, before α.
        """
        tokens = x.flatten(0, 1)
        counted = None if counted is None else counted.flatten()
        routing = self.gate(tokens, counted)
        y = self.experts(tokens, routing.experts, routing.weights).view_as(x)
        if self.shared_experts is not None:
            y = y + self.shared_experts(x)
        balance = balance_loss(routing, x.shape[0], counted) if self.training and self.alpha else None
        return y, balance
