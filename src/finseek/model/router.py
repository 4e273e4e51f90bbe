"""Which experts a token is sent to, and with what weight.

    N tokens   D hidden   E routed experts   K chosen   G groups of E/G experts

DeepSeek-V3 (arXiv 2412.19437, equations 12 to 16): s = sigmoid(x eᵀ); the choice goes by s + b, within the best groups;
the weights are s of the chosen, without b, normalised and scaled. DeepSeek-V2 (arXiv 2405.04434): s = softmax(x eᵀ).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finseek.model.config import DeepSeekConfig

SCORES: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "softmax": lambda z: z.softmax(dim=-1)}
# How the E/G scores of a group (N, G, E/G) become the group's own (N, G).
GROUP_SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "noaux_tc": lambda s: s.topk(min(2, s.shape[-1]), dim=-1).values.sum(dim=-1),
    "group_limited_greedy": lambda s: s.amax(dim=-1),
}


class Routing(NamedTuple):
    """The choice of N tokens: experts (N, K) int64, their weights (N, K), all scores (N, E)."""

    experts: Tensor
    weights: Tensor
    scores: Tensor


class Router(nn.Module):
    """The gate of a mixture; computes in fp32 or wider whatever the model's dtype."""

    def __init__(self, config: DeepSeekConfig) -> None:
        super().__init__()
        E = config.n_routed_experts
        self.K, self.G, self.topk_group = config.num_experts_per_tok, config.n_group, config.topk_group
        self.scoring_func, self.topk_method = config.scoring_func, config.topk_method
        self.normalised, self.factor = config.norm_topk_prob, config.routed_scaling_factor
        self.weight = nn.Parameter(torch.empty(E, config.hidden_size))
        if self.topk_method == "noaux_tc":
            self.register_buffer("e_score_correction_bias", torch.zeros(E, dtype=torch.float32))
        # Tokens each expert got since the last update of the bias: a statistic, not a part of the checkpoint.
        self.register_buffer("load", torch.zeros(E, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor, counted: Tensor | None = None) -> Routing:
        """Route x (N, D); in training the tokens `counted` (N,) bool (None: all) add to `load`."""
        wide = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            scores = SCORES[self.scoring_func](F.linear(x.to(wide), self.weight.to(wide)))
        experts = self.choose(scores.detach())
        weights = scores.gather(1, experts)
        if self.normalised:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        if self.training and torch.is_grad_enabled():  # a dry run for shapes counts nothing
            self.count(experts, counted)
        return Routing(experts, weights * self.factor, scores)

    def choose(self, scores: Tensor) -> Tensor:
        """The K experts of each token, (N, E) -> (N, K): highest s + b among the `topk_group` best groups."""
        biased = scores + self.e_score_correction_bias if self.topk_method == "noaux_tc" else scores
        if self.topk_method in GROUP_SCORES and self.topk_group < self.G:
            grouped = biased.unflatten(1, (self.G, -1))
            best = GROUP_SCORES[self.topk_method](grouped).topk(self.topk_group, dim=-1).indices
            outside = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter(1, best, False)
            biased = grouped.masked_fill(outside[..., None], float("-inf")).flatten(1)
        return biased.topk(self.K, dim=-1, sorted=False).indices

    @torch.no_grad()
    def count(self, experts: Tensor, counted: Tensor | None) -> None:
        """Add a choice (N, K) to the load."""
        ones = torch.ones_like(experts, dtype=self.load.dtype)
        if counted is not None:
            ones = ones * counted[:, None]
        self.load.scatter_add_(0, experts.flatten(), ones.flatten())

    @torch.no_grad()
    def update_bias(self, gamma: float) -> None:
        """Update b += γ · sign(mean load − load), and forget the load (arXiv 2408.15664)."""
        if self.topk_method == "noaux_tc":
            self.e_score_correction_bias += gamma * torch.sign(self.load.mean() - self.load)
        self.load.zero_()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Router:
        # `.to(bfloat16)` must not round the bias: steps of γ = 0.001 would be lost in it.
        before = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            moved = self._buffers[name]
            if torch.finfo(moved.dtype).bits < 32:
                self._buffers[name] = buffer.to(device=moved.device, dtype=torch.float32)
        return self


def balance_loss(routing: Routing, batch: int, counted: Tensor | None = None) -> Tensor:
    """Sequence-wise balance (arXiv 2412.19437, equations 17 to 20), before α: Σ_i f_i P_i of each sequence, (B,).

    f_i = E/(K·T) · tokens that chose i, P_i = mean of s_i / Σ_j s_j, over the T counted tokens of each of `batch` rows.
    """
    N, E = routing.scores.shape
    K, t = routing.experts.shape[1], N // max(batch, 1)
    counted = routing.scores.new_ones(N) if counted is None else counted.to(routing.scores.dtype)
    per_row = counted.view(batch, t, 1)
    T = per_row.sum(dim=1).clamp_min(1)
    chosen = torch.zeros_like(routing.scores).scatter(1, routing.experts, 1.0)
    f = (chosen.view(batch, t, E) * per_row).sum(dim=1) * E / (K * T)
    share = routing.scores / routing.scores.sum(dim=-1, keepdim=True)
    P = (share.view(batch, t, E) * per_row).sum(dim=1) / T
    return (f * P).sum(dim=-1)
