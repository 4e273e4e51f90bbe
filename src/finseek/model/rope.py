"""Rotary positions (arXiv 2104.09864) with YaRN (arXiv 2309.00071), on interleaved pairs as DeepSeek stores them.

B batch   T tokens   r rotary width of a head   φ angle
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from finseek.model.config import DeepSeekConfig, YarnScaling


def temperature(factor: float, mscale: float) -> float:
    """YaRN's attention temperature, DeepSeek's form: 0.1 · mscale · ln(factor) + 1 (1 for a factor up to 1)."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def softmax_scale(config: DeepSeekConfig) -> float:
    """1 / sqrt(width of a key), times mscale_all_dim's temperature squared under YaRN."""
    scale = config.qk_head_dim**-0.5
    yarn = config.rope_scaling
    return scale * temperature(yarn.factor, yarn.mscale_all_dim) ** 2 if yarn and yarn.mscale_all_dim else scale


def rotation_scale(yarn: YarnScaling | None) -> float:
    """The length of the rotating phasors: 1, or under YaRN the ratio of both temperatures."""
    if yarn is None:
        return 1.0
    if yarn.mscale and yarn.mscale_all_dim:
        return temperature(yarn.factor, yarn.mscale) / temperature(yarn.factor, yarn.mscale_all_dim)
    return temperature(yarn.factor, 1.0)


def frequencies(config: DeepSeekConfig, device: torch.device | str | None, dtype: torch.dtype) -> Tensor:
    """Radians a position of each pair, (r/2,).

    Plain: θ^(-2i/r). YaRN keeps the pairs that turn more than `beta_fast` times within the original context, slows
    those that turn less than `beta_slow` times by `factor`, and blends linearly in between (section 3.2 of its paper).
    """
    width, theta, yarn = config.qk_rope_head_dim, config.rope_theta, config.rope_scaling
    pair = torch.arange(width // 2, device=device, dtype=dtype)
    plain = theta ** (-2 * pair / width)
    if yarn is None:
        return plain

    def pair_that_turns(times: float) -> float:
        return width * math.log(yarn.original_max_position_embeddings / (times * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(pair_that_turns(yarn.beta_fast)), 0)
    last = min(math.ceil(pair_that_turns(yarn.beta_slow)), width - 1)
    slowed = ((pair - first) / max(last - first, 1e-3)).clamp(0, 1)
    return plain * (1 - slowed) + plain / yarn.factor * slowed


def phasors(config: DeepSeekConfig, positions: Tensor, dtype: torch.dtype) -> Tensor:
    """e^{iφ} of each position and pair: (…) -> complex (…, r/2); in fp32, or in fp64 for a float64 model."""
    real = torch.float64 if dtype == torch.float64 else torch.float32
    angle = positions.to(real)[..., None] * frequencies(config, positions.device, real)
    return torch.polar(torch.full_like(angle, rotation_scale(config.rope_scaling)), angle)


def rotate(x: Tensor, phasor: Tensor) -> Tensor:
    """Turn the pairs (x0, x1), (x2, x3), … of (…, r), each read as a complex number, by `phasor` (…, r/2)."""
    pairs = torch.view_as_complex(x.to(phasor.real.dtype).unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * phasor).flatten(-2).to(x.dtype)
