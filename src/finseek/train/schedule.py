"""The learning rate of a step."""

from __future__ import annotations

import math


def learning_rate(step: int, total: int, peak: float, warmup: int, floor_ratio: float) -> float:
    """Rate of step ``step`` (from 0) of ``total``: linear warm-up, then a cosine to ``floor_ratio`` · peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min((step - warmup) / max(total - 1 - warmup, 1), 1.0)
    return peak * (floor_ratio + (1 - floor_ratio) * 0.5 * (1 + math.cos(math.pi * done)))
