"""Experts: SwiGLU (arXiv 2002.05202), one alone or E of them in stacked weights, and the mixture of both.

N tokens   K experts a token   M = N·K rows   E experts   D hidden   I width of an expert
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finseek.model.config import DeepSeekConfig
from finseek.model.grouped import LINEARS, Combine, Dispatch, SwiGLU, as_autocast, can_group, inverse_of
from finseek.model.router import Router, balance_loss

Compute = Callable[[Tensor, Tensor], Tensor]  # rows sorted by expert (M, D), rows of each expert (E,) -> (M, D)
Exchange = Callable[[Tensor, Tensor], Callable[[Compute], Tensor]]  # sends the rows; then computes, brings them back


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


STACKED = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")  # ends of the names of the stacked weights


class RoutedExperts(nn.Module):
    """E experts as stacked weights; each token's K rows are sorted by expert, multiplied in groups, and summed.

    `implementation` is `grouped`, `loop` or `auto` (grouped where the dtype and the strides allow it). `exchange`, set
    by expert parallelism, sends the sorted rows to the processes that own their experts, and brings them back.
    """

    def __init__(self, config: DeepSeekConfig) -> None:
        super().__init__()
        E, D, width = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.E = E
        self.gate_up_proj = nn.Parameter(torch.empty(E, 2 * width, D))
        self.down_proj = nn.Parameter(torch.empty(E, D, width))
        self.implementation = "auto"
        self.exchange: Exchange | None = None

    def forward(
        self, x: Tensor, experts: Tensor, weights: Tensor, meanwhile: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Σ_k weight_k · expert_k(x), x (N, D), choice and weights (N, K); meanwhile(x) joins the sum."""
        choice = experts.flatten()
        order = choice.argsort(stable=True)
        inverse = inverse_of(order)
        counts = torch.zeros(self.E, dtype=torch.int64, device=x.device).scatter_add_(
            0, choice, torch.ones_like(choice)
        )
        rows = Dispatch.apply(x, order, inverse)
        arrive = self.exchange(rows, counts) if self.exchange else None
        rest = meanwhile(x) if meanwhile else None
        rows = arrive(self.compute) if arrive else self.compute(rows, counts)
        y = Combine.apply(rows, weights.to(rows.dtype), order, inverse)
        return y if rest is None else y + rest

    def compute(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Each expert on its own consecutive rows: (M, D), (E,) -> (M, D)."""
        # Each weight is read once: an adapter computes it on access.
        rows, gate_up, down = as_autocast(rows, self.gate_up_proj, self.down_proj)
        auto = "grouped" if can_group(rows, gate_up, down) else "loop"
        linear = LINEARS[auto if self.implementation == "auto" else self.implementation]
        return linear(SwiGLU.apply(linear(rows, gate_up, counts)), down, counts)


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
            (B, T, D), and in training with α > 0 the balance loss of each row (B,), before α.
        """
        tokens = x.flatten(0, 1)
        counted = None if counted is None else counted.flatten()
        routing = self.gate(tokens, counted)
        y = self.experts(tokens, routing.experts, routing.weights, self.shared_experts).view_as(x)
        balance = balance_loss(routing, x.shape[0], counted) if self.training and self.alpha else None
        return y, balance
