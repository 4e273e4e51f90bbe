"""Where a run stands, and the log line that says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Standing:
    """Counts and sums since the start, and since the last line of the log; all of it is part of the resume state."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_validation_loss: float = math.inf
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    action_sum: float = 0.0
    action_count: float = 0.0
    line_tokens: int = 0
    line_seconds: float = 0.0
    learning_rate: float = 0.0
    grad_norm: float = 0.0
    router_load: list[list[float]] = field(default_factory=list)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Standing:
        """The standing that :meth:`to_dict` gave."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def add(self, tokens: int, figures: Mapping[str, Any]) -> None:
        """Count one step and its figures."""
        self.step += 1
        self.tokens += tokens
        self.line_tokens += tokens
        for name in ("loss_sum", "loss_weight", "action_sum", "action_count"):
            setattr(self, name, getattr(self, name) + figures[name])
        self.learning_rate, self.grad_norm = figures["learning_rate"], figures["grad_norm"]
        self.router_load = figures["router_load"]

    def line(self, validation: Mapping[str, float | None] | None, epoch: int) -> dict[str, Any]:
        """The log line of the steps since the last one, which starts the next."""
        line = {
            "step": self.step,
            "epoch": epoch,
            "tokens": self.tokens,
            "loss": self.loss_sum / self.loss_weight,
            "action_loss": self.action_sum / self.action_count if self.action_count else None,
            "validation_loss": validation["validation_loss"] if validation else None,
            "validation_action_loss": validation["validation_action_loss"] if validation else None,
            "learning_rate": self.learning_rate,
            "grad_norm": self.grad_norm,
            "router_load_max": max((max(layer) * len(layer) for layer in self.router_load), default=None),
            "router_load_min": min((min(layer) * len(layer) for layer in self.router_load), default=None),
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.line_tokens / max(self.seconds - self.line_seconds, 1e-9), 1),
        }
        self.loss_sum = self.loss_weight = self.action_sum = self.action_count = 0.0
        self.line_tokens, self.line_seconds = 0, self.seconds
        return line
