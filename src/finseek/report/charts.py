"""Line, bar and interval pictures as HTML and SVG.

They are drawn here and not by a charting library: plotly, ECharts, Chart.js and uPlot all draw with a script, so that
nothing is left with JavaScript off, and matplotlib or pygal scale the text with the picture, which nobody can read on
a phone. Here the SVG holds the curves alone and is stretched to the page's width; every word is HTML in the page's own
type, and every colour a CSS variable, so that themes, print and narrow screens need no second drawing.

Coordinates: the picture is SIDE × SIDE whatever its size on the screen; x runs right, y runs down.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from markupsafe import Markup, escape

from finseek.report.blocks import Chart, Interval, Intervals, Table
from finseek.report.numbers import ABSENT, Format, compact, finite

SIDE = 1000
MAX_POINTS = 1200
MAX_NUMBERS = 16
X_NAMES = 5

_LAST_ZERO = re.compile(r"(\.\d*)0(?=\D*$)")
_BARE_POINT = re.compile(r"\.(?=\D*$)")

Points = Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """One series of a chart.

    Attributes:
        name: what the legend says.
        values: one for each x; None leaves a gap.
        tone: number of the colour, 1 to 6.
        shape: how it is drawn.
    """

    name: str
    values: Points
    tone: int = 1
    shape: Literal["line", "dots", "area", "bars", "dashed"] = "line"


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (steps of 1, 2 or 5 times a power of ten) that enclose [low, high]."""
    if not high > low:
        spread = abs(low) * 0.1 or 1.0
        low, high = low - spread, high + spread
    rough = (high - low) / max(wanted - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{place * step:.12g}") for place in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that enclose [low, high], both positive, and 2 and 5 times them where that is not too many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1
    factors = (1, 2, 5) if high < 500 * low else (1,)
    ticks = [float(f"{factor}e{power}") for power in range(first, last + 1) for factor in factors]
    below = max(tick for tick in ticks if tick <= low)
    above = min(tick for tick in ticks if tick >= high and tick > below)
    return [tick for tick in ticks if below <= tick <= above]


def tick_labels(ticks: Sequence[float], shown: Format) -> list[str]:
    """Labels of an axis, without the decimals that are zero in every one of them."""
    labels = [shown(tick) for tick in ticks]
    while all(_LAST_ZERO.search(label) for label in labels):
        labels = [_LAST_ZERO.sub(r"\1", label) for label in labels]
    return [_BARE_POINT.sub("", label) for label in labels]


def kept_points(count: int, most: int = MAX_POINTS) -> list[int]:
    """Evenly spaced positions, the first and the last among them, of at most ``most`` points."""
    if count <= most:
        return list(range(count))
    return sorted({round(place * (count - 1) / (most - 1)) for place in range(most)})


def _path(xs: Sequence[float], ys: Points) -> str:
    """An SVG path through the points, lifted where a value is absent."""
    steps, lifted = [], True
    for x, y in zip(xs, ys, strict=True):
        if y is None:
            lifted = True
            continue
        steps.append(f"{'M' if lifted else 'L'}{x:.1f} {y:.1f}")
        lifted = False
    return "".join(steps)


def _drawn(line: Line, xs: Sequence[float], ys: Points, floor: float) -> str:
    here = [(x, y) for x, y in zip(xs, ys, strict=True) if y is not None]
    tone = f"tone-{line.tone}"
    if line.shape == "dots":
        marks = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in here)
        return f'<path class="dots {tone}" d="{marks}"/>'
    if line.shape == "bars":
        gap = min((right - left for left, right in pairwise(xs)), default=SIDE) * 0.42
        bars = "".join(f"M{x - gap:.1f} {floor:.1f}V{y:.1f}H{x + gap:.1f}V{floor:.1f}Z" for x, y in here)
        return f'<path class="bars {tone}" d="{bars}"/>'
    curve = _path(xs, ys)
    filled = ""
    if line.shape == "area" and here:
        under = f"M{here[0][0]:.1f} {floor:.1f}" + "".join(f"L{x:.1f} {y:.1f}" for x, y in here)
        filled = f'<path class="area {tone}" d="{under}L{here[-1][0]:.1f} {floor:.1f}Z"/>'
    dashed = " dashed" if line.shape == "dashed" else ""
    return f'{filled}<path class="line {tone}{dashed}" d="{curve}"/>'


def chart(
    key: str,
    title: str,
    explain: str,
    x: Sequence[float],
    x_names: Sequence[str],
    lines: Sequence[Line],
    shown: Format,
    *,
    x_title: str,
    zero: bool = False,
    marks: Sequence[tuple[float, str]] = (),
    x_labels: Sequence[tuple[float, str]] = (),
    latest: bool = True,
    log: bool = False,
) -> Chart:
    """Draw series over a common x.

    Args:
        key: identifier, unique on the page.
        title: what is shown.
        explain: one sentence for somebody who doesn't know the code.
        x: increasing positions, one a point.
        x_names: how each position is called in the read-out.
        lines: the series, each as long as ``x``.
        shown: format of the values.
        x_title: what x is.
        zero: include zero in the scale of the values.
        marks: vertical lines (position, label).
        x_labels: (position, label) of the x axis, which then reaches from the first to the last of them; without
            them some of the points are named.
        latest: x is an order of time, so that the last value of a series is its present one.
        log: a logarithmic scale, where every value is positive.
    """
    kept = kept_points(len(x))
    x_kept = [float(x[i]) for i in kept]
    names = [x_names[i] for i in kept]
    series = [Line(line.name, [finite(line.values[i]) for i in kept], line.tone, line.shape) for line in lines]
    values = [value for line in series for value in line.values if value is not None] or [0.0]
    barred = any(line.shape in ("bars", "area") for line in series)
    ends = values + ([0.0] if zero or barred else [])
    bent = log and min(ends) > 0
    ticks = log_ticks(min(ends), max(ends)) if bent else nice_ticks(min(ends), max(ends))
    labels = tick_labels(ticks, compact if bent else shown)
    places = x_kept + [position for position, _ in (*marks, *x_labels)]
    left, right = min(places, default=0.0), max(places, default=1.0)
    if right == left:
        left, right = left - 0.5, right + 0.5
    elif not x_labels and any(line.shape == "bars" for line in series):
        margin = (right - left) / (2 * max(len(x_kept) - 1, 1))
        left, right = left - margin, right + margin

    def across(position: float) -> float:
        return (position - left) / (right - left) * SIDE

    height = math.log10 if bent else float

    def down(value: float) -> float:
        return (height(ticks[-1]) - height(value)) / (height(ticks[-1]) - height(ticks[0])) * SIDE

    xs = [across(position) for position in x_kept]
    floor = down(min(max(0.0, ticks[0]), ticks[-1]))
    grid = "".join(
        f'<path class="{"base" if tick == 0 else "grid"}" d="M0 {down(tick):.1f}H{SIDE}"/>' for tick in ticks
    )
    curves = "".join(_drawn(line, xs, [None if v is None else down(v) for v in line.values], floor) for line in series)
    flags = "".join(f'<path class="mark" d="M{across(position):.1f} 0V{SIDE}"/>' for position, _ in marks)
    y_axis = "".join(
        f'<span style="top:{down(tick) / SIDE:.2%}">{escape(text)}</span>'
        for tick, text in zip(ticks, labels, strict=True)
    )
    named = x_labels or [(x_kept[i], names[i]) for i in kept_points(len(names), X_NAMES)]
    x_axis = "".join(
        f'<span class="{_edge(place, len(named))}" style="left:{across(position) / SIDE:.2%}">{escape(label)}</span>'
        for place, (position, label) in enumerate(named)
    )
    flag_names = "".join(
        f'<span class="flag{" flip" if across(position) > SIDE * 0.55 else ""}" '
        f'style="left:{across(position) / SIDE:.2%}">{escape(label)}</span>'
        for position, label in marks
    )
    picture = Markup(
        '<div class="frame" aria-hidden="true">'
        f'<div class="y" style="width:{max(map(len, labels)) + 1}ch">{y_axis}</div>'
        f'<div class="plot"><svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none">{grid}{curves}{flags}</svg>'
        f'{flag_names}<div class="hair" hidden></div></div>'
        f'<div class="x">{x_axis}</div><div class="x-title">{escape(x_title)}</div></div>'
    )
    legend = [
        {"name": line.name, "tone": line.tone, "shape": line.shape, "last": _last(line.values, shown)}
        for line in series
    ]
    data = {
        "at": [round(position / SIDE, 4) for position in xs],
        "names": names,
        "values": [[shown(value) for value in line.values] for line in series],
        "legend": legend,
        "axis": f"{x_title} " if latest else "",
        "summary": _summary(names, series, shown),
    }
    rows = [[names[i], *(shown(line.values[i]) for line in series)] for i in kept_points(len(names), MAX_NUMBERS)]
    numbers = Table(f"{title}: figures", "", [x_title, *(line.name for line in series)], rows)
    return Chart(key, title, explain, picture, data, numbers, latest)


def _edge(place: int, count: int) -> str:
    """Class of an axis label: the outer ones are aligned inwards, every second inner one goes on narrow screens."""
    if place == 0:
        return "first"
    return "last" if place == count - 1 else "odd" if place % 2 else "even"


def _last(values: Points, shown: Format) -> str:
    return next((shown(value) for value in reversed(values) if value is not None), ABSENT)


def _summary(names: Sequence[str], lines: Sequence[Line], shown: Format) -> str:
    """The picture in words, for those who hear the page."""
    if not names:
        return "No points."
    told = []
    for line in lines:
        here = [value for value in line.values if value is not None]
        if here:
            told.append(
                f"{line.name}: {shown(here[0])} to {shown(here[-1])}, between {shown(min(here))} and {shown(max(here))}"
            )
    return f"From {names[0]} to {names[-1]}. " + "; ".join(told) + "."


def intervals(
    caption: str,
    explain: str,
    what: str,
    rows: Sequence[tuple[str, float | None, float | None, float | None, str]],
    shown: Format,
) -> Intervals:
    """Place (label, estimate, low, high, reading) on one scale that includes zero."""
    ends = [end for row in rows for end in map(finite, row[1:4]) if end is not None] + [0.0]
    largest = max(map(abs, ends)) or 1.0
    low, high = min(ends) / largest, max(ends) / largest
    pad = (high - low) * 0.06 or 1.0
    low, high = low - pad, high + pad

    def place(value: float) -> float:
        return round((value / largest - low) / (high - low) * 100, 2)

    placed = []
    for label, estimate, bottom, top, reading in rows:
        value, lower, upper = finite(estimate), finite(bottom), finite(top)
        if value is None or lower is None or upper is None:
            placed.append(Interval(label, shown(value), ABSENT, reading, None, 0.0, 0.0))
            continue
        bounds = f"{shown(lower)} to {shown(upper)}"
        placed.append(
            Interval(
                label, shown(value), bounds, reading, place(lower), round(place(upper) - place(lower), 2), place(value)
            )
        )
    return Intervals(caption, explain, what, placed, place(0.0))
