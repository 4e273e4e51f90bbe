"""What no value may break in the report's pictures."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finseek.report.charts import SIDE, Line, chart, intervals, nice_ticks
from finseek.report.numbers import number2

sizes = st.floats(-1e12, 1e12, allow_nan=False).map(lambda x: 0.0 if abs(x) < 1e-9 else x)
maybe = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), sizes)


@given(sizes, sizes)
def test_ticks_enclose_evenly_and_are_few(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high)
    slack = 1e-8 * max(abs(low), abs(high), 1e-6)
    assert 2 <= len(ticks) <= 9
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    steps = [right - left for left, right in pairwise(ticks)]
    assert min(steps) > 0
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-3)


@given(st.lists(maybe, max_size=40), st.sampled_from(["line", "dots", "area", "bars", "dashed"]))
def test_every_curve_stays_in_the_picture(values: list[float | None], shape: str) -> None:
    x = list(map(float, range(len(values))))
    kept = [None if v is None or abs(v) > 1e12 else v for v in values]
    made = chart("k", "T", "E.", x, [str(i) for i in x], [Line("a", kept, shape=shape)], number2, x_title="x")  # type: ignore[arg-type]
    assert "nan" not in str(made.picture)
    for path in re.findall(r'tone-1[^"]*" d="([^"]*)"', str(made.picture)):
        for number in re.findall(r"-?\d+\.\d+", path):
            assert -0.1 <= float(number) <= SIDE + 0.1
    assert all(0 <= place <= 1 for place in made.data["at"])


@given(st.lists(st.tuples(maybe, maybe, maybe), max_size=8))
def test_every_interval_lies_on_its_track(found: list[tuple[float | None, float | None, float | None]]) -> None:
    rows = [
        ("a", *sorted(three, key=lambda v: (v is None, v if v == v else 0.0)), "r")
        for three in found
        if None not in three
    ]
    made = intervals("C", "E.", "W", [(n, m, lo, hi, r) for n, lo, m, hi, r in rows], number2)  # type: ignore[misc]
    assert 0 <= made.zero <= 100
    for row in made.rows:
        if row.left is not None:
            assert 0 <= row.left <= row.left + row.width <= 100.01
            assert row.width >= 0
