"""From predictions to metrics: labels, money, baselines, each with its session-bootstrap interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from finseek.core.actions import ACTIONS, Action, Labelled
from finseek.core.errors import InputError
from finseek.evaluate.baselines import majority, persistence
from finseek.evaluate.breakdown import breakdowns
from finseek.evaluate.calibration import calibration_metrics
from finseek.evaluate.classification import (
    accuracy,
    classification_metrics,
    macro_f1,
    session_cells,
    shape_cells,
)
from finseek.evaluate.financial import Floats, Ints, direction_sums, financial_metrics, row_returns
from finseek.evaluate.options import EvaluateOptions
from finseek.evaluate.records import SCORED, Prediction
from finseek.stats import (
    Statistic,
    block_within,
    interval,
    mean_of,
    paired_difference,
    resample_counts,
    stationary_bootstrap,
)

if TYPE_CHECKING:
    from finseek.market import Prices

_CODE = {action: code for code, action in enumerate(ACTIONS)}
COMPARED: dict[str, Statistic] = {
    "accuracy": lambda totals: accuracy(shape_cells(totals[..., :-4])),
    "macro_f1": lambda totals: macro_f1(shape_cells(totals[..., :-4])),
    "hit_rate": lambda totals: mean_of(totals[..., -4:-2]),
    "mean_return": lambda totals: mean_of(totals[..., -2:]),
}
"""What is compared with a baseline, from cells of the confusion matrix, then hits and return of horizon 1."""


@dataclass(frozen=True)
class Metrics:
    """The scores of one evaluation; ``to_json`` gives metrics.json.

    Attributes:
        rows: what came in and what became of it.
        bootstrap: how the intervals were made.
        classification: scores of the labels, over all rows and over the scored ones.
        calibration: of the probabilities; None where no row has any.
        financial: by horizon; None without prices.
        breakdowns: by ticker, month and answer.
        baselines: scores of each baseline and the paired difference of the model to it.
    """

    rows: dict[str, Any]
    bootstrap: dict[str, Any]
    classification: dict[str, Any]
    calibration: dict[str, Any] | None
    financial: dict[str, Any] | None
    breakdowns: dict[str, Any]
    baselines: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain data; absence is null."""
        return asdict(self)


def score_predictions(
    predictions: Sequence[Prediction],
    prices: Prices | None,
    options: EvaluateOptions | None = None,
    *,
    training: Sequence[Labelled] = (),
    history: Sequence[Labelled] = (),
    baselines: Mapping[str, Sequence[Action | None]] | None = None,
    seed: int = 0,
) -> Metrics:
    """Score predictions against the teacher's actions and the market.

    Args:
        predictions: one for each (ticker, as-of date), in any order.
        prices: the price table; None leaves the financial part out.
        options: horizons and bootstrap; the defaults if None.
        training: labels of the training split (the majority baseline).
        history: all labels known before and during the test (the persistence baseline).
        baselines: further predictors by name, each with one answer for each prediction, in their order.
        seed: of the bootstrap.

    Raises:
        InputError: no prediction, one twice, or a baseline of another length.
    """
    options = options or EvaluateOptions()
    rows = sorted(predictions, key=lambda row: (row.as_of_date, row.ticker))
    order = sorted(range(len(predictions)), key=lambda i: (predictions[i].as_of_date, predictions[i].ticker))
    _check(rows)
    days, session = np.unique(np.array([row.as_of_date for row in rows], dtype="datetime64[D]"), return_inverse=True)
    block = block_within(options.mean_block, len(days))
    truth = np.array([_CODE[row.gt_action] for row in rows])
    answer = codes([row.pred_action for row in rows])
    rng = np.random.default_rng(seed)
    indices = stationary_bootstrap(len(days), block, options.bootstrap_resamples, rng)
    counts = resample_counts(indices)
    cells = session_cells(truth, answer, session, len(days))

    direction = directions([row.pred_action for row in rows])
    found_returns = row_returns(rows, prices, options.forward_windows) if prices is not None else None
    returns = found_returns.rows[1] if found_returns else None

    def sums(answers: Sequence[Action | None]) -> Floats:
        """(S, K) what each session adds to the totals that ``COMPARED`` reads."""
        labels = session_cells(truth, codes(answers), session, len(days))
        return np.hstack([labels, *direction_sums(directions(answers), returns, session, len(days))])

    ours = sums([row.pred_action for row in rows])
    found: dict[str, Any] = {"majority": majority(rows, training), "persistence": persistence(rows, history)}
    for name, answers in (baselines or {}).items():
        if len(answers) != len(rows):
            raise InputError(f"baseline {name} has {len(answers)} answers for {len(rows)} predictions")
        found[name] = [answers[i] for i in order]
    compared = {
        name: _compare(ours, sums(answers), counts, options.level) for name, answers in found.items() if any(answers)
    }
    financial = None
    if found_returns is not None:
        rank = np.array([row.pred_action.rank if row.pred_action else np.nan for row in rows], dtype=float)
        financial = financial_metrics(
            direction, rank, _expected_rank(rows), found_returns, session, counts, options, seed
        )
    return Metrics(
        rows=_account(rows, len(days)),
        bootstrap={
            "resamples": options.bootstrap_resamples,
            "mean_block": block,
            "level": options.level,
            "seed": seed,
            "unit": "session",
        },
        classification=classification_metrics(cells, counts, options.level),
        calibration=calibration_metrics(rows, session, counts, options.level),
        financial=financial,
        breakdowns=breakdowns(rows, answer == truth, direction, returns, session, counts, options.level),
        baselines=compared,
    )


def codes(answers: Sequence[Action | None]) -> Ints:
    """Actions as 0 to 4, None as -1."""
    return np.array([-1 if answer is None else _CODE[answer] for answer in answers], dtype=np.int64)


def directions(answers: Sequence[Action | None]) -> Ints:
    """Sign of the position that each answer asks for; 0 for HOLD and unscored."""
    return np.array([answer.direction if answer else 0 for answer in answers], dtype=np.int64)


def _expected_rank(rows: Sequence[Prediction]) -> Floats | None:
    """Mean rank under the probabilities (n,), NaN where there are none; None if no row has any."""
    if all(row.p is None for row in rows):
        return None
    return np.array([sum(action.rank * p for action, p in row.p.items()) if row.p else np.nan for row in rows])


def _check(rows: Sequence[Prediction]) -> None:
    if not rows:
        raise InputError("there is no prediction to score: the test split or the file is empty")
    for before, row in pairwise(rows):
        if (before.ticker, before.as_of_date) == (row.ticker, row.as_of_date):
            raise InputError(f"{row.ticker} as of {row.as_of_date} is predicted twice: keep one row of them")
    for row in rows:
        if (row.pred_action is None) == (row.status == SCORED):
            raise InputError(
                f"{row.ticker} as of {row.as_of_date} has status {row.status!r} and action {row.pred_action}: "
                f"a row has an action if and only if its status is {SCORED!r}"
            )


def _account(rows: Sequence[Prediction], sessions: int) -> dict[str, Any]:
    unscored = Counter(row.status for row in rows if row.pred_action is None)
    return {
        "total": len(rows),
        "scored": len(rows) - sum(unscored.values()),
        "unscored": dict(sorted(unscored.items())),
        "repaired": dict(sorted(Counter(repair for row in rows for repair in row.repairs).items())),
        "sessions": sessions,
        "tickers": len({row.ticker for row in rows}),
        "first": rows[0].as_of_date.isoformat(),
        "last": rows[-1].as_of_date.isoformat(),
    }


def _compare(ours: Floats, theirs: Floats, counts: Floats, level: float) -> dict[str, Any]:
    """Scores of a baseline over all rows, and ours minus theirs on the same resampled sessions."""
    scored = shape_cells(theirs[:, :-4].sum(0))[:, :-1].sum()
    result: dict[str, Any] = {"answered": int(scored), "difference": {}}
    for name, statistic in COMPARED.items():
        estimate = float(statistic(theirs.sum(0)))
        result[name] = interval(estimate, statistic(counts @ theirs), level).to_json()
        difference = paired_difference(ours, theirs, statistic, counts, level)
        result["difference"][name] = difference.to_json() | {
            "p_value": difference.p_value,
            "better": difference.above_zero,
        }
    return result
