"""Multi-head latent attention (arXiv 2405.04434, section 2.1; 2412.19437, equations 1 to 11).

    B batch   T tokens   S tokens attended to   D hidden   H heads
    R rank of the latent c^KV   n, r, v widths of a head: without rotation, rotary, value

All heads read keys and values from one latent c^KV (R numbers a token) and one rotary key k^R (r numbers):

    k_h = [W^UK_h c^KV ; k^R]     v_h = W^UV_h c^KV     o_h = softmax(s · q_h k_hᵀ) v_h

Two forms give the same numbers. *Expanded*, for training and prompts, computes k and v of every head. *Absorbed*, for
decoding, uses q_hᵀ (W^UK_h c) = (W^UK_hᵀ q_h)ᵀ c, so that attention runs on the cached latents themselves.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finseek.model.blockwise import BlockwiseAttention
from finseek.model.config import DeepSeekConfig
from finseek.model.norm import RMSNorm
from finseek.model.rope import rotate, softmax_scale

LATENT_EPS = 1e-6  # DeepSeek's code fixes it for the two latent norms, whatever rms_norm_eps says


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(s·q kᵀ) v by the fastest kernel at hand: q, k (B, H, T, n+r) and v (B, H, T, v) -> (B, H, T, v)."""
    if q.device.type == "cpu" and torch.is_grad_enabled():
        return BlockwiseAttention.apply(q, k, v, mask, scale)
    v_padded = F.pad(v, (0, max(0, q.shape[-1] - v.shape[-1])))  # the flash kernels know one width alone
    o = F.scaled_dot_product_attention(q, k, v_padded, attn_mask=mask, is_causal=mask is None, scale=scale)
    return o[..., : v.shape[-1]]


class LatentCache(Protocol):
    """What one layer keeps of the tokens that it has seen."""

    def append(self, latents: Tensor) -> Tensor:
        """Store the latents [c^KV ; k^R] of new tokens (B, T, R+r); return those of all (B, S, R+r)."""

    @property
    def is_empty(self) -> bool:
        """Whether no token was seen before this call."""


class MultiHeadLatentAttention(nn.Module):
    """MLA, with a low-rank query (`q_lora_rank`) or a plain one."""

    def __init__(self, config: DeepSeekConfig) -> None:
        super().__init__()
        D, H, R, bias = config.hidden_size, config.num_attention_heads, config.kv_lora_rank, config.attention_bias
        self.n, self.r, self.v, self.R = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim, R
        if config.q_lora_rank is None:
            self.q_proj = nn.Linear(D, H * (self.n + self.r), bias=False)
        else:
            self.q_a_proj = nn.Linear(D, config.q_lora_rank, bias=bias)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, LATENT_EPS)
            self.q_b_proj = nn.Linear(config.q_lora_rank, H * (self.n + self.r), bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(D, R + self.r, bias=bias)
        self.kv_a_layernorm = RMSNorm(R, LATENT_EPS)
        self.kv_b_proj = nn.Linear(R, H * (self.n + self.v), bias=False)
        self.o_proj = nn.Linear(H * self.v, D, bias=bias)
        self.share = nn.Identity()  # k^R goes to all heads: where they are split, its gradient is summed over them here
        self.has_query_rank = config.q_lora_rank is not None
        self.scale = softmax_scale(config)

    def forward(
        self,
        x: Tensor,
        phasor: Tensor,
        mask: Tensor | None = None,
        cache: LatentCache | None = None,
        last: bool = False,
    ) -> Tensor:
        """Attend.

        Args:
            x: (B, T, D).
            phasor: rotation of each token, complex (B or 1, T, r/2).
            mask: who may be attended to, bool (B, 1, T, S); None is causal over these T tokens.
            cache: the layer's earlier tokens; this call's are added to it.
            last: let the last token alone attend; the others only join the cache.

        Returns:
            (B, T, D), or (B, 1, D) for `last`.
        """
        latents = self.latents(x, phasor)
        decoding = last or (cache is not None and not cache.is_empty)
        if cache is not None:
            latents = cache.append(latents)
        if last:
            x, phasor, mask = x[:, -1:], phasor[:, -1:], None if mask is None else mask[:, :, -1:]
        form = self.absorbed if decoding else self.expanded
        return self.o_proj(form(*self.queries(x, phasor), latents, mask).flatten(-2))

    def queries(self, x: Tensor, phasor: Tensor) -> tuple[Tensor, Tensor]:
        """q^C and the rotated q^R of every head: (B, T, H, n) and (B, T, H, r)."""
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))) if self.has_query_rank else self.q_proj(x)
        q_nope, q_rope = q.unflatten(-1, (-1, self.n + self.r)).split([self.n, self.r], dim=-1)
        return q_nope, rotate(q_rope, phasor[:, :, None])

    def latents(self, x: Tensor, phasor: Tensor) -> Tensor:
        """What the cache holds of a token, [c^KV ; rotated k^R]: (B, T, R+r)."""
        c, k_rope = self.kv_a_proj_with_mqa(x).split([self.R, self.r], dim=-1)
        return torch.cat([self.kv_a_layernorm(c), rotate(k_rope, phasor)], dim=-1)

    def expanded(self, q_nope: Tensor, q_rope: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
        """Attention on the keys and values of every head: -> (B, T, H, v)."""
        c, k_rope = latents.split([self.R, self.r], dim=-1)
        k_nope, v = self.kv_b_proj(c).unflatten(-1, (-1, self.n + self.v)).split([self.n, self.v], dim=-1)
        k_rope = self.share(k_rope)[:, :, None].expand(-1, -1, k_nope.shape[2], -1)
        q, k = (
            torch.cat([a.transpose(1, 2), b.transpose(1, 2)], dim=-1) for a, b in ((q_nope, q_rope), (k_nope, k_rope))
        )
        return attend(q, k, v.transpose(1, 2), mask, self.scale).transpose(1, 2)

    def absorbed(self, q_nope: Tensor, q_rope: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
        """Attention on the latents: one key [c ; k^R] and one value c for all heads: -> (B, T, H, v)."""
        B, T, H, _ = q_nope.shape
        W_UK, W_UV = self.up_projections()
        q = torch.cat([torch.einsum("bthn,hnr->bthr", q_nope, W_UK), q_rope], dim=-1) * self.scale
        scores = (q.flatten(1, 2) @ latents.mT).view(B, T, H, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask.transpose(1, 2), float("-inf"))
        wide = torch.promote_types(scores.dtype, torch.float32)
        weights = scores.softmax(dim=-1, dtype=wide).to(latents.dtype)
        o = (weights.flatten(1, 2) @ latents[..., : self.R]).view(B, T, H, self.R)
        return torch.einsum("bthr,hvr->bthv", o, W_UV)

    def up_projections(self) -> tuple[Tensor, Tensor]:
        """W^UK (H, n, R) and W^UV (H, v, R), the two halves of kv_b_proj; an adapter's part included."""
        if type(self.kv_b_proj) is nn.Linear:
            weight = self.kv_b_proj.weight
        else:  # an adapter changes the product, not `.weight`
            reference = self.kv_a_layernorm.weight
            weight = self.kv_b_proj(torch.eye(self.R, device=reference.device, dtype=reference.dtype)).mT
        return weight.unflatten(0, (-1, self.n + self.v)).split([self.n, self.v], dim=1)
