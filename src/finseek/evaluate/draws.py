"""The same prompts asked several times at a temperature above zero: how sure the model is of its own answer.

Agreement: share of a row's draws that give its most frequent answer. Entropy: -sum p ln p of the shares of a row's
answers, in nats. Unscored answers count as an answer of their own. Vote: the most frequent action; none on a tie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import log
from typing import Any

from finseek.core.actions import Action
from finseek.evaluate.records import Prediction


def agreement(draws: Sequence[Sequence[Prediction]]) -> dict[str, Any]:
    """Agreement, entropy and the accuracy of the vote over the rows of several draws."""
    shares, entropies, right, voted = [], [], 0, 0
    for row in zip(*draws, strict=True):
        counted = Counter(prediction.pred_action for prediction in row)
        parts = [n / len(row) for n in counted.values()]
        shares.append(max(parts))
        entropies.append(-sum(p * log(p) for p in parts))
        winner = vote(counted)
        voted += winner is not None
        right += winner == row[0].gt_action
    n = len(shares)
    return {
        "draws": len(draws),
        "rows": n,
        "agreement": sum(shares) / n if n else None,
        "entropy": sum(entropies) / n if n else None,
        "voted": voted,
        "vote_accuracy": right / n if n else None,
    }


def vote(counted: Counter[Action | None]) -> Action | None:
    """The single most frequent action, None on a tie or where most answers are unscored."""
    (first, most), *rest = counted.most_common(2)
    return None if rest and rest[0][1] == most else first
