"""How the training went: loss, speed and the load of the experts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from finseek.report.blocks import Block, Chart, Facts, Group, Notice, Section
from finseek.report.charts import Line, chart
from finseek.report.inputs import Json, ReportInputs
from finseek.report.numbers import ABSENT, Format, compact, finite, integer, number2, number3, seconds
from finseek.report.sections.run import lookup

LEAD = (
    "The model read the training samples and was corrected towards the teacher's answers; it never learned from the "
    "validation samples, and {}."
)
_KEPT = {
    "best": "the weights that did best on them were kept",
    "last": "the weights of the last step were kept whatever they say",
}

_PICTURES: tuple[tuple[str, str, str, tuple[tuple[str, str, int, str], ...], Format], ...] = (
    (
        "loss",
        "Loss by training step",
        "How surprised the model is by the teacher's words (nats per token, logarithmic scale, lower is better): all "
        "that it is trained on, the answers of the validation samples, and the action alone in both; validation "
        "rising while training falls means that it memorises.",
        (
            ("loss", "training", 1, "line"),
            ("validation_loss", "validation answers", 2, "line"),
            ("action_loss", "action, training", 3, "dashed"),
            ("validation_action_loss", "action, validation", 4, "dashed"),
        ),
        number3,
    ),
    (
        "learning-rate",
        "Learning rate",
        "How large a correction each step was allowed to make.",
        (("learning_rate", "learning rate", 1, "line"),),
        compact,
    ),
    (
        "grad-norm",
        "Gradient norm",
        "Size of the correction that the data asked for before clipping; sudden peaks mean unstable training.",
        (("grad_norm", "gradient norm", 4, "line"),),
        number2,
    ),
    (
        "throughput",
        "Throughput",
        "Tokens that training read in a second, on the machine that the first section names.",
        (("tokens_per_second", "tokens per second", 3, "line"),),
        integer,
    ),
    (
        "expert-load",
        "Load of the experts",
        "Tokens that the busiest and the idlest routed expert received, as multiples of an even share; "
        "an expert near zero has stopped learning.",
        (
            ("router_load_max", "busiest expert", 2, "line"),
            ("router_load_min", "idlest expert", 1, "line"),
        ),
        number2,
    ),
)


def column(rows: Sequence[Json], name: str) -> list[float | None]:
    """One column of the log, None where a row lacks it."""
    return [finite(row.get(name)) for row in rows]


def best_validation(rows: Sequence[Json]) -> tuple[Any, float] | None:
    """Step and value of the lowest validation loss."""
    seen = [(value, row.get("step")) for row in rows if (value := finite(row.get("validation_loss"))) is not None]
    return (min(seen)[1], min(seen)[0]) if seen else None


def section(inputs: ReportInputs) -> Section:
    """Loss curves and the course of training."""
    rows = inputs.train_log
    if not rows:
        none = "No training log: nothing was trained in this run."
        return Section("training", "Training", "What the model learned from.", [Notice(none)])
    final, best = rows[-1], best_validation(rows)
    blocks: list[Block] = [
        Facts(
            [
                ("Steps", integer(final.get("step")), "corrections of the weights"),
                ("Tokens", integer(final.get("tokens")), "read in training, repeats included"),
                (
                    "Best validation loss",
                    number3(best[1]) if best else ABSENT,
                    f"at step {integer(best[0])}" if best else "never measured",
                ),
                ("Time", seconds(final.get("seconds")), "in training"),
            ]
        )
    ]
    pictures = [picture for spec in _PICTURES if (picture := _picture(rows, *spec, best)) is not None]
    blocks += [*pictures[:1], *([Group(pictures[1:])] if pictures[1:] else [])]
    kept = _KEPT.get(str(lookup(inputs.config, "train.keep")), _KEPT["best"])
    return Section("training", "Training", LEAD.format(kept), blocks)


def _picture(
    rows: Sequence[Json],
    key: str,
    title: str,
    explain: str,
    series: tuple[tuple[str, str, int, Any], ...],
    shown: Format,
    best: tuple[Any, float] | None,
) -> Chart | None:
    """A chart of some columns of the log; None if the log has none of them."""
    kept = [
        row
        for row in rows
        if finite(row.get("step")) is not None and any(row.get(name) is not None for name, *_ in series)
    ]
    columns = [(column(kept, name), label, tone, shape) for name, label, tone, shape in series]
    lines = [
        Line(label, _bridged(values), tone, shape)
        for values, label, tone, shape in columns
        if any(v is not None for v in values)
    ]
    if not lines:
        return None
    marks = [(float(best[0]), "lowest validation")] if key == "loss" and best and finite(best[0]) is not None else []
    steps = [float(row["step"]) for row in kept]
    return chart(
        f"chart-{key}",
        title,
        explain,
        steps,
        [f"{step:,.0f}" for step in steps],
        lines,
        shown,
        x_title="training step",
        marks=marks,
        zero=key in ("throughput", "expert-load"),
        log=key == "loss",
    )


def _bridged(values: Sequence[float | None]) -> list[float | None]:
    """Join the points of a column that is logged now and then (validation) by straight lines."""
    known = [(i, value) for i, value in enumerate(values) if value is not None]
    joined: list[float | None] = list(values)
    for (left, first), (right, last) in pairwise(known):
        for i in range(left + 1, right):
            joined[i] = first + (last - first) * (i - left) / (right - left)
    return joined
