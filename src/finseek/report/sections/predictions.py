"""What the model answered, beside what the teacher said and what simple rules would have said."""

from __future__ import annotations

from collections.abc import Sequence

from finseek.report.blocks import Block, Cell, Facts, Intervals, Matrix, Notice, Quotes, Section, Table
from finseek.report.charts import intervals
from finseek.report.figures import Estimate, Figures
from finseek.report.inputs import Json, ReportInputs
from finseek.report.numbers import (
    ABSENT,
    chance,
    integer,
    interval,
    number2,
    number3,
    percent,
    share,
    signed_number3,
    signed_percent2,
    signed_points,
)
from finseek.report.sections.calibration import calibration_block

LEAD = (
    "On the test split the model gives one of five actions for each ticker and session, without having seen any "
    "later day. "
    "The teacher's action is what it should reproduce; whether that action makes money is a question for the backtest."
)
ACTIONS = ("STRONG_SELL", "SELL", "HOLD", "BUY", "STRONG_BUY")


def section(inputs: ReportInputs, figures: Figures) -> Section:
    """Scores, baselines, confusion, directions, calibration and examples."""
    if inputs.evaluation is None:
        return Section(
            "predictions", "Predictions", LEAD, [Notice("No evaluation: no predictions were scored in this run.")]
        )
    blocks: list[Block | None] = [
        _scores(figures),
        _baselines(figures),
        _rules(figures),
        _confusion(inputs.evaluation.get("classification") or {}),
        _classes(inputs.evaluation.get("classification") or {}),
        _unscored(figures),
        _money(inputs.evaluation),
        _information(inputs.evaluation),
        calibration_block(inputs.evaluation.get("calibration")),
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
        "In percentage points. The model is better than a rule only if the whole interval of their difference on the "
        "same rows lies right of the dashed zero; sessions are resampled whole, because rows of one day are not "
        "independent.",
        "Baseline",
        rows,
        signed_points,
    )


_RULES = {
    "majority": "always the commonest action of the training split",
    "persistence": "the teacher's last action on the same ticker",
    "random": "an action drawn by the shares of the training split",
    "momentum": "buy what rose over 20 sessions, sell what fell",
    "reversal": "sell what rose over 5 sessions, buy what fell",
    "logistic": "logistic regression on the numbers of the prompt",
    "gradient boosting": "boosted trees on the numbers of the prompt",
    "base": "the checkpoint before this training",
    "teacher": "the teacher itself: what a perfect copy would reach",
}


def _rules(figures: Figures) -> Table | None:
    known = [[baseline.name, _RULES[baseline.name]] for baseline in figures.baselines if baseline.name in _RULES]
    if not known:
        return None
    explain = "Each answers the same rows from what was known as of the same day."
    return Table("What the baselines are", explain, ["Baseline", "Rule"], known, frozenset({0, 1}), folded=True)


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
                *(percent(Estimate.read(scores.get(name)).value) for name in ("precision", "recall")),
                number3(Estimate.read(scores.get("f1")).value),
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


def _information(evaluation: Json) -> Table | None:
    """Rank correlation of answers and returns, by horizon."""
    rows = []
    for horizon, found in (evaluation.get("financial") or {}).items():
        told = found.get("rank_ic") or {}
        if told.get("mean") is not None:
            shown = [form(told.get(name)) for name, form in _IC]
            rows.append([f"{horizon}", integer(told.get("n")), *shown])
    if not rows:
        return None
    return Table(
        "Rank correlation of answers and returns",
        "Within each session: whether names with a more bullish answer rose more (1) or less (−1) than the others; "
        "the error allows for sessions that resemble their neighbours, and p is how often chance does as well.",
        ["Sessions ahead", "Sessions", "Mean", "Standard error", "t", "p"],
        rows,
    )


_IC = (("mean", signed_number3), ("standard_error", number3), ("t", number2), ("p_value", chance))


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
