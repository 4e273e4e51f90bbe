"""Where a run stands, and the log line that says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SUMS = ("loss_sum", "loss_weight", "action_sum", "action_count", "mtp_loss", "balance_loss")
EXPLODED, SLACK = 1.5, 1.0  # a line's loss above 1.5 times that of the first line plus one nat is no longer learning


@dataclass
class Reached:
    """How far a run is."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_validation_loss: float = math.inf


@dataclass
class Standing(Reached):
    """Counts and sums since the start, and since the last line of the log; all of it is part of the resume state."""

    first_loss: float | None = None
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    action_sum: float = 0.0
    action_count: float = 0.0
    mtp_loss: float = 0.0
    balance_loss: float = 0.0
    line_steps: int = 0
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
        self.line_steps += 1
        self.line_tokens += tokens
        for name in SUMS:
            setattr(self, name, getattr(self, name) + figures[name])
        self.learning_rate, self.grad_norm = figures["learning_rate"], figures["grad_norm"]
        self.router_load = figures["router_load"]

    def fault(self) -> str:
        """What is wrong with the steps since the last line; empty while they learn."""
        if not math.isfinite(self.loss_sum) or not math.isfinite(self.grad_norm):
            return f"the loss of step {self.step} is {self.loss_sum:g}, its gradient norm {self.grad_norm:g}"
        loss = self.loss_sum / self.loss_weight
        if self.first_loss is not None and self.line_steps > 1 and loss > EXPLODED * self.first_loss + SLACK:
            return f"the loss up to step {self.step} is {loss:.3g}, that of the first steps was {self.first_loss:.3g}"
        return ""

    def line(
        self, validation: Mapping[str, float | None] | None, epoch: int, work_share: float | None, memory: float
    ) -> dict[str, Any]:
        """The log line of the steps since the last one, which starts the next.

        Args:
            validation: its losses, where there was one.
            epoch: of the last step.
            work_share: operations of a token over the peak of all devices, in seconds; None where that is unknown.
            memory: most bytes in use so far on one device, in GiB.
        """
        speed = self.line_tokens / max(self.seconds - self.line_seconds, 1e-9)
        line = {
            "step": self.step,
            "epoch": epoch,
            "tokens": self.tokens,
            "loss": self.loss_sum / self.loss_weight,
            "action_loss": self.action_sum / self.action_count if self.action_count else None,
            "mtp_loss": self.mtp_loss / self.line_steps if self.mtp_loss else None,
            "balance_loss": self.balance_loss / self.line_steps if self.balance_loss else None,
            "validation_loss": validation["validation_loss"] if validation else None,
            "validation_action_loss": validation["validation_action_loss"] if validation else None,
            "learning_rate": self.learning_rate,
            "grad_norm": self.grad_norm,
            "router_load_max": max((max(layer) * len(layer) for layer in self.router_load), default=None),
            "router_load_min": min((min(layer) * len(layer) for layer in self.router_load), default=None),
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(speed, 1),
            "mfu": None if work_share is None else round(speed * work_share, 4),
            "memory_gib": round(memory, 3),
        }
        if self.first_loss is None:
            self.first_loss = line["loss"]
        for name in SUMS:
            setattr(self, name, 0.0)
        self.line_steps, self.line_tokens, self.line_seconds = 0, 0, self.seconds
        return line
