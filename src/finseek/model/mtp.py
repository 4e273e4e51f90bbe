"""Multi-token prediction (arXiv 2412.19437, section 2.2): modules in a chain, the k-th predicts the token k+1 ahead.

    h'_i = W [norm(Emb(t_{i+k})) ; norm(h_i^{k-1})]      h^k = block(h')      p(t_{i+k+1}) = head(norm(h^k_i))

The paper writes the hidden state first; the published weights, and so this code, put the embedding first. h^0 is the
trunk's output after its final norm. Embedding and head are the trunk's own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finseek.model.block import DeepSeekBlock
from finseek.model.config import DeepSeekConfig
from finseek.model.norm import RMSNorm


class SharedHead(nn.Module):
    """The module's own final norm; the projection to the vocabulary is the trunk's."""

    def __init__(self, config: DeepSeekConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class MTPBlock(DeepSeekBlock):
    """One depth of prediction; stored, as in DeepSeek's checkpoints, as a layer after the trunk's last."""

    def __init__(self, config: DeepSeekConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.shared_head = SharedHead(config)

    def merge(self, h: Tensor, embedded: Tensor) -> Tensor:
        """The block's input h' from the depth before (B, T, D) and the next tokens' embeddings (B, T, D)."""
        return self.eh_proj(torch.cat([self.enorm(embedded), self.hnorm(h)], dim=-1))
