"""One row of an evaluation."""

from __future__ import annotations

from datetime import date

import msgspec

from finseek.core.actions import Action

SCORED = "scored"


class Prediction(msgspec.Struct, frozen=True):
    """What the model answered for one ticker and date; (ticker, as_of_date) is unique in an evaluation.

    Attributes:
        ticker: upper case.
        as_of_date: the session of the decision.
        gt_action: the teacher's action.
        pred_action: the model's action; None where the answer is unscored.
        status: "scored", or the reason why there is no action.
        p: five probabilities that sum to one, from the log-probabilities of the complete action strings; or None.
        completion: the model's text, as it came.
        repairs: names of the repair rules that the parser applied.
        confidence: probability of the action that was written, where a server tells that alone.
    """

    ticker: str
    as_of_date: date
    gt_action: Action
    pred_action: Action | None
    status: str
    p: dict[Action, float] | None = None
    completion: str = ""
    repairs: tuple[str, ...] = ()
    confidence: float | None = None
