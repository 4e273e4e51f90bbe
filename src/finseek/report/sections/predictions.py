"""What the model answered, beside what the teacher said and what simple rules would have said."""

from __future__ import annotations

from collections.abc import Sequence

from finseek.report.blocks import Block, Cell, Chart, Facts, Intervals, Matrix, Notice, Quotes, Section, Table
from finseek.report.charts import Line, chart, intervals
from finseek.report.figures import Estimate, Figures
from finseek.report.inputs import Json, ReportInputs, Rows
from finseek.report.numbers import (
    ABSENT,
    finite,
    integer,
    interval,
    number2,
    number3,
    percent,
    plural,
    share,
    signed_percent,
    signed_percent2,
)

LEAD = (
    "On the test split the model gives one of five actions for each ticker and session, without having seen any "
    "later day. "
    "The teacher's action is what it should reproduce; whether that action makes money is a question for the backtest."
)
ACTIONS = ("STRONG_SELL", "SELL", "HOLD", "BUY", "STRONG_BUY")
BINS = 10


def section(inputs: ReportInputs, figures: Figures) -> Section:
    """Scores, confusion, baselines, calibration and examples."""
    if inputs.evaluation is None:
        return Section(
            "predictions", "Predictions", LEAD, [Notice("No evaluation: no predictions were scored in this run.")]
        )
    blocks: list[Block | None] = [
        _scores(figures),
        _baselines(figures),
        _confusion(inputs.evaluation.get("classification") or {}),
        _classes(inputs.evaluation.get("classification") or {}),
        _unscored(figures),
        _money(inputs.evaluation),
        _calibration(inputs.predictions),
        _examples(inputs.examples, inputs.options.examples),
    ]
    return Section("predictions", "Predictions", LEAD, [block for block in blocks if block is not None])


def _scores(figures: Figures) -> Facts:
    accuracy = figures.accuracy
    items = [
        (
            "Accuracy",
            percent(accuracy.value),
            f"share of the teacher's actions reproduced; {figures.interval} "
            f"{interval(accuracy.low, accuracy.high, percent)}",
        ),
        (
            "Macro F1",
            number3(figures.macro_f1),
            "mean over the actions of how well each is found; rare actions count as much as common ones",
        ),
        (
            "Scored",
            f"{integer(figures.scored)} of {integer(figures.rows)}",
            "test rows with an answer that could be read",
        ),
    ]
    if figures.bayes_accuracy is not None:
        items.append(
            ("Best possible", percent(figures.bayes_accuracy), "accuracy of a predictor that knows the planted rule")
        )
    return Facts(items)


def _baselines(figures: Figures) -> Intervals | Notice:
    if not figures.baselines:
        return Notice("No baseline was scored: an accuracy alone says nothing.")
    rows = [
        (
            f"{baseline.name} ({percent(baseline.accuracy)})",
            baseline.difference.value,
            baseline.difference.low,
            baseline.difference.high,
            _better(baseline.difference),
        )
        for baseline in figures.baselines
    ]
    return intervals(
        "Accuracy of the model less accuracy of each baseline",
        "The model is better than a rule only if the whole interval of their difference on the same rows lies right "
        "of the dashed zero; "
        "sessions are resampled whole, because rows of one day are not independent.",
        "Baseline",
        rows,
        signed_percent,
    )


def _better(difference: Estimate) -> str:
    return {
        "above zero": "model is better",
        "below zero": "model is worse",
        "includes zero": "cannot be told apart",
    }.get(difference.reading, "no interval")


def _confusion(classification: Json) -> Matrix | None:
    confusion = classification.get("confusion")
    if not confusion:
        return None
    rows = []
    for truth, counts in zip(confusion["truth"], confusion["counts"], strict=True):
        total = sum(counts)
        cells = [
            Cell(integer(count), round(100 * (share(count, total) or 0.0)), "main" if answer == truth else "loss")
            for answer, count in zip(confusion["answer"], counts, strict=True)
        ]
        rows.append((spoken(truth), cells))
    return Matrix(
        "Confusion: teacher's action (rows) by the model's answer (columns)",
        "How often each action of the teacher was answered with which; blue cells on the diagonal are right, red "
        "ones wrong, deeper means a larger share of the row.",
        "Teacher",
        [spoken(answer) for answer in confusion["answer"]],
        rows,
    )


def spoken(action: str | None) -> str:
    """An action as the page says it."""
    return str(action).replace("_", " ").lower() if action else ABSENT


def _classes(classification: Json) -> Table | None:
    classes = classification.get("by_class")
    if not classes:
        return None
    return Table(
        "Scores by action",
        "Precision is how often the model is right when it gives the action, recall how many of the teacher's it "
        "finds, F1 their harmonic mean.",
        ["Action", "Teacher's", "Model's", "Precision", "Recall", "F1"],
        [
            [
                spoken(action),
                integer(scores.get("support")),
                integer(scores.get("answered")),
                *(percent(Estimate.read(scores.get(name)).value) for name in ("precision", "recall", "f1")),
            ]
            for action, scores in classes.items()
        ],
    )


def _unscored(figures: Figures) -> Table | None:
    if not figures.unscored:
        return None
    return Table(
        "Answers that could not be read",
        "An answer without exactly one well-formed action is counted here with its reason and never guessed.",
        ["Reason", "Rows"],
        [[spoken(reason), integer(count)] for reason, count in figures.unscored.items()],
    )


def _money(evaluation: Json) -> Table | None:
    """Hit rate, mean return and Sharpe of the bare directions, by horizon."""
    horizons = evaluation.get("financial")
    if not horizons:
        return None
    rows = []
    for horizon, found in horizons.items():
        estimates = [
            (Estimate.read(found.get("hit_rate")), percent),
            (Estimate.read(found.get("mean_return")), signed_percent2),
        ]
        estimates.append((Estimate.read((found.get("directional") or {}).get("sharpe")), number2))
        shown = [f"{form(e.value)} ({interval(e.low, e.high, form)})" for e, form in estimates]
        rows.append([f"{horizon}", integer((found.get("rows") or {}).get("directional")), *shown])
    return Table(
        "Directions before costs, by horizon",
        "Whether prices went the way of the answer in the sessions after the next open, HOLD left out, with "
        "intervals; half the hits, no return and a Sharpe of zero are what chance gives.",
        ["Sessions ahead", "Rows", "Hit rate", "Mean return", "Directional Sharpe"],
        rows,
        text=frozenset({0}),
    )


def calibration_points(predictions: Rows) -> list[tuple[float, float, int]]:
    """Mean confidence, share of right answers and rows of each of ten equal bins of confidence that has rows."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for row in predictions:
        confidence = _confidence(row)
        if confidence is not None:
            bins[min(int(confidence * BINS), BINS - 1)].append((confidence, row["pred_action"] == row["gt_action"]))
    return [
        (sum(sure for sure, _ in found) / len(found), sum(right for _, right in found) / len(found), len(found))
        for found in bins
        if found
    ]


def _calibration(predictions: Rows) -> Chart | None:
    points = calibration_points(predictions)
    if not points:
        return None
    sure = [point[0] for point in points]
    return chart(
        "chart-calibration",
        "Calibration",
        "Each dot gathers answers of like confidence; on the dashed line the model is right exactly as often as it is "
        "sure, below it the model is overconfident.",
        sure,
        [f"{percent(confidence)} sure, {plural(count, 'row')}" for confidence, _, count in points],
        [Line("right", [point[1] for point in points], 1, "dots"), Line("perfectly calibrated", sure, 5, "dashed")],
        percent,
        x_title="confidence of the answer",
        zero=True,
        x_wanted=2,
        latest=False,
    )


def _confidence(row: Json) -> float | None:
    """Probability of the answered action, normalised over the five."""
    if row.get("status") != "scored":
        return None
    told = finite(row.get("confidence"))
    if told is not None:
        return told
    chances = [finite(row.get(f"p_{action.lower()}")) for action in ACTIONS]
    mine = finite(row.get(f"p_{str(row.get('pred_action')).lower()}"))
    known = [chance for chance in chances if chance is not None]
    return mine / sum(known) if mine is not None and len(known) == len(ACTIONS) and sum(known) > 0 else None


def _examples(examples: Sequence[Json], most: int) -> Quotes | None:
    if not examples or not most:
        return None
    items = []
    for row in examples[:most]:
        right = "right" if row.get("pred_action") == row.get("gt_action") else "wrong"
        answer = spoken(row.get("pred_action")) if row.get("status") == "scored" else f"unscored ({row.get('status')})"
        heading = (
            f"{row.get('ticker')}, {row.get('as_of_date')}: teacher {spoken(row.get('gt_action'))}, model {answer}"
        )
        passages = [
            ("Model's answer", row.get("completion")),
            ("Teacher's reasoning", row.get("reasoning")),
            ("Teacher's support", row.get("support")),
        ]
        items.append(
            (
                f"{heading} – {right}" if row.get("status") == "scored" else heading,
                [(label, str(text)) for label, text in passages if text],
            )
        )
    return Quotes(
        "Examples",
        "Answers as the model gave them, beside the teacher's words, chosen without regard to whether they are right.",
        items,
    )
