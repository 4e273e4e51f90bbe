"""Whether the model is right as often as it is sure."""

from __future__ import annotations

from finseek.report.blocks import Chart, Group, Table
from finseek.report.charts import Line, chart
from finseek.report.figures import Estimate
from finseek.report.inputs import Json
from finseek.report.numbers import GLUE, interval, number3, percent, plural

_MEASURES = (
    ("mean_confidence", "Mean confidence", percent, "how sure the model is on average"),
    ("expected_calibration_error", "Calibration error", percent, "mean distance of the dots from the dashed line"),
    ("brier", "Brier score", number3, "squared error of the five probabilities; 0 is perfect, 0.8 is one fifth each"),
    ("log_loss", "Log loss", number3, "nats by which the teacher's action surprises; 1.609 is one fifth each"),
)


def calibration_block(found: Json | None) -> Group | None:
    """The picture and its measures; None where no answer came with a probability."""
    bins = [one for one in (found or {}).get("reliability", ()) if one["rows"]]
    if not found or not bins:
        return None
    sure, ends = [one["confidence"] for one in bins], [0.0, 1.0]
    x = sorted({*sure, *ends})
    right = {one["confidence"]: one["accuracy"] for one in bins}
    names = {one["confidence"]: f"{percent(one['confidence'])} sure, {plural(one['rows'], 'row')}" for one in bins}
    picture: Chart = chart(
        "chart-calibration",
        "Calibration",
        "Each dot gathers answers of like confidence; on the dashed line the model is right exactly as often as it is "
        "sure, below it the model is overconfident.",
        x,
        [names.get(at, percent(at)) for at in x],
        [Line("right", [right.get(at) for at in x], 1, "dots"), Line("perfectly calibrated", x, 5, "dashed")],
        percent,
        x_title="confidence of the answer",
        zero=True,
        x_labels=[(quarter / 4, f"{25 * quarter}{GLUE}%") for quarter in range(5)],
        latest=False,
    )
    rows = []
    for key, title, shown, meaning in _MEASURES:
        estimate = Estimate.read(found.get(key))
        rows.append([title, f"{shown(estimate.value)} ({interval(estimate.low, estimate.high, shown)})", meaning])
    explain = f"Of the {plural(found['rows'], 'answer')} whose probability is known."
    measures = Table("How sure, how right", explain, ["Measure", "Value", "Meaning"], rows, frozenset({0, 2}))
    return Group([picture, measures])
