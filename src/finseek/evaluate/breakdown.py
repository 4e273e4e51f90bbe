"""The same scores by ticker, by month and by predicted action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.evaluate.records import Prediction
from finseek.stats import bootstrap_interval, mean_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def breakdowns(
    rows: Sequence[Prediction],
    correct: NDArray[np.bool_],
    direction: Ints,
    returns: Floats | None,
    session: Ints,
    counts: Floats,
    level: float,
) -> dict[str, Any]:
    """Accuracy, hit rate and mean return (horizon 1, as in `financial`) of every ticker, month and predicted action.

    Args:
        rows: sorted as all that follows.
        correct: (n,) whether the answer is right; an unscored one is not.
        direction: (n,) of -1, 0, 1.
        returns: (n,) forward returns at horizon 1, NaN where there is none; None without prices.
        session: (n,) session of each row.
        counts: (R, S) how often each resample drew each session.
        level: nominal coverage.
    """
    keys = {
        "by_ticker": np.array([row.ticker for row in rows]),
        "by_month": np.array([row.as_of_date.strftime("%Y-%m") for row in rows]),
        "by_answer": np.array([row.pred_action or "UNSCORED" for row in rows]),
    }
    measures: dict[str, tuple[Floats, NDArray[np.bool_]]] = {
        "accuracy": (correct.astype(float), np.ones(len(rows), dtype=bool))
    }
    if returns is not None:
        traded = np.isfinite(returns) & (direction != 0)
        measures["hit_rate"] = ((np.sign(returns) == direction).astype(float), traded & (returns != 0))
        measures["mean_return"] = (direction * returns, traded)

    def table(key: NDArray[np.str_]) -> dict[str, Any]:
        names, group = np.unique(key, return_inverse=True)
        found: dict[str, Any] = {str(name): {"rows": int((group == g).sum())} for g, name in enumerate(names)}
        for measure, (values, use) in measures.items():
            flat = session[use] * len(names) + group[use]
            size = counts.shape[1] * len(names)
            total = np.bincount(flat, weights=values[use], minlength=size).reshape(-1, len(names))
            number = np.bincount(flat, minlength=size).reshape(-1, len(names)).astype(float)
            for g, name in enumerate(names):
                sums = np.stack([total[:, g], number[:, g]], axis=1)
                found[str(name)][measure] = bootstrap_interval(sums, mean_of, counts, level).to_json()
        return found

    return {name: table(key) for name, key in keys.items()}
