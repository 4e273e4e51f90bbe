"""What a pretrained model may have read about the test: its knowledge cutoff against the test sessions.

Inside the training data of a model, memory cannot be told from skill (arXiv 2504.14765); only sessions after the
cutoff count as a test, the others are reported apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from finseek.evaluate import Prediction


def split_at_cutoff(rows: Sequence[Prediction], cutoff: date) -> tuple[list[Prediction], list[Prediction]]:
    """Rows up to and including the cutoff, and rows after it."""
    return [row for row in rows if row.as_of_date <= cutoff], [row for row in rows if row.as_of_date > cutoff]


def knowledge_gate(rows: Sequence[Prediction], cutoff: date | None, pretrained: bool) -> dict[str, Any]:
    """Whether the test lies after everything that the model can have read.

    Args:
        rows: the predictions of the test split.
        cutoff: last day of the model's knowledge (model.knowledge_cutoff).
        pretrained: whether the weights come from a checkpoint rather than from a seed.

    Returns:
        ``gate`` green, amber (some sessions lie inside) or red (all do, or nobody says), with counts and a sentence.
    """
    about: dict[str, Any] = {"cutoff": cutoff.isoformat() if cutoff else None, "pretrained": pretrained}
    if not pretrained:
        says = "the weights were drawn at random: the model has read its training split alone"
        return about | {"gate": "green", "inside": 0, "after": len(rows), "says": says}
    if cutoff is None:
        return about | {
            "gate": "red",
            "inside": None,
            "after": None,
            "says": "the model is pretrained and its knowledge_cutoff is unset: what it read is unknown",
        }
    inside, after = (len(part) for part in split_at_cutoff(rows, cutoff))
    gate, says = (
        ("green", "every test session lies after the cutoff")
        if not inside
        else ("amber", "test sessions up to the cutoff are reported apart and prove nothing")
        if after
        else ("red", "the whole test lies inside the model's knowledge")
    )
    return about | {"gate": gate, "inside": inside, "after": after, "says": says}
