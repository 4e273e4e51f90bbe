"""One decoder layer: x + attention(norm(x)), then + feed-forward(norm(·))."""

from __future__ import annotations

from torch import Tensor, nn

from finseek.model.attention import LatentCache, MultiHeadLatentAttention
from finseek.model.config import DeepSeekConfig
from finseek.model.experts import Expert, MoE
from finseek.model.norm import RMSNorm


class DeepSeekBlock(nn.Module):
    """Layer `layer` of the model; the first `first_k_dense_replace` have one dense expert, the others a mixture."""

    def __init__(self, config: DeepSeekConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = MultiHeadLatentAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        mixed = config.is_moe_layer(layer)
        self.mlp = MoE(config) if mixed else Expert(config.hidden_size, config.intermediate_size)
        self.is_moe = mixed

    def forward(
        self,
        h: Tensor,
        phasor: Tensor,
        mask: Tensor | None = None,
        counted: Tensor | None = None,
        cache: LatentCache | None = None,
        last: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Run the layer on h (B, T, D): the new h, for `last` its last token's alone, and the balance loss."""
        attended = self.self_attn(self.input_layernorm(h), phasor, mask, cache, last)
        h = (h[:, -1:] if last else h) + attended
        x = self.post_attention_layernorm(h)
        y, balance = self.mlp(x, counted) if self.is_moe else (self.mlp(x), None)
        return h + y, balance
