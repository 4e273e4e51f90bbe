"""Multi-token prediction (arXiv 2412.19437, section 2.2): modules in a chain, the k-th predicts the token k+1 ahead.

    h'_i = W [norm(Emb(t_{i+k})) ; norm(h_i^{k-1})]      h^k = norm(block(h'))      p(t_{i+k+1}) = head(h^k_i)

The paper writes the hidden state first; the published weights, and so this code, put the embedding first. h^0 is the
trunk's output after its final norm. Embedding and head are the trunk's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from finseek.model.attention import LatentCache
from finseek.model.block import DeepSeekBlock
from finseek.model.config import DeepSeekConfig
from finseek.model.context import Context
from finseek.model.loss import Targets, next_token_loss
from finseek.model.norm import RMSNorm
from finseek.model.rope import phasors

if TYPE_CHECKING:
    from finseek.model.deepseek import DeepSeekV3


class SharedHead(nn.Module):
    """The module's own final norm; the projection to the vocabulary is the trunk's."""

    def __init__(self, config: DeepSeekConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class MTPBlock(DeepSeekBlock):
    """One depth of prediction; stored, as in DeepSeek's checkpoints, as a layer after the trunk's last."""

    def __init__(self, config: DeepSeekConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.config = config
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.shared_head = SharedHead(config)

    def forward(  # type: ignore[override]
        self, h: Tensor, embedded: Tensor, context: Context, cache: LatentCache | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """h^k (B, t, D) from h^{k-1} and the embeddings of the tokens k ahead, both (B, t, D); and the balance loss."""
        merged = self.eh_proj(torch.cat([self.enorm(embedded), self.hnorm(h)], dim=-1))
        phasor = phasors(self.config, context.positions, h.dtype)
        h, balance = super().forward(merged, phasor, context.mask, context.counted, cache)
        return self.shared_head.norm(h), balance


def mtp_loss(
    model: DeepSeekV3, h: Tensor, input_ids: Tensor, context: Context, targets: Targets
) -> tuple[Tensor, list[Tensor]]:
    """Mean loss of the depths (equation 25, before λ) on the trunk's h (B, T, D), and their balance losses."""
    embedded = model.model.embed_tokens(input_ids)
    losses, balances = [], []
    for depth, block in enumerate(model.mtp_blocks(), start=1):
        h, balance = block(h[:, :-1], embedded[:, depth:], context.ahead(depth))  # the last has no token so far ahead
        losses.append(next_token_loss(h, model.lm_head, targets, ahead=depth + 1).mean)
        balances += [] if balance is None else [balance]
    return torch.stack(losses).mean(), balances
