"""RMSNorm (arXiv 1910.07467): y = x / sqrt(mean(x²) + ε) · g."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Scale the last axis (width D) to unit root mean square, times a learned gain g (D,); computed in ≥ fp32."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) -> (…, D)."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)
