"""The learning rate of a step."""

from __future__ import annotations

import math

from finseek.train.options import TrainOptions


def learning_rate(step: int, total: int, options: TrainOptions) -> float:
    """Rate of step ``step`` (from 0) of ``total``: linear warm-up, then a cosine to ``min_learning_rate_ratio``."""
    peak, warmup, floor_ratio = options.learning_rate, options.warmup_steps, options.min_learning_rate_ratio
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min((step - warmup) / max(total - 1 - warmup, 1), 1.0)
    return peak * (floor_ratio + (1 - floor_ratio) * 0.5 * (1 + math.cos(math.pi * done)))
