from __future__ import annotations

import re

import pytest

from finseek.report.charts import Line, chart, intervals, kept_points, log_ticks, nice_ticks, tick_labels
from finseek.report.numbers import ABSENT, chance, integer, number2, number3, percent, plural, signed_percent


def drawn(values: list[float | None], **changes: object) -> str:
    x = list(map(float, range(len(values))))
    return str(
        chart(
            "k", "T", "E.", x, [f"p{i}" for i in range(len(x))], [Line("a", values)], number2, x_title="x", **changes
        ).picture
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.5, 1.0]),
        (-0.08, 0.0, [-0.08, -0.06, -0.04, -0.02, 0.0]),
        (18_960.0, 20_930.0, [18_500.0, 19_000.0, 19_500.0, 20_000.0, 20_500.0, 21_000.0]),
        (5.0, 5.0, [4.5, 5.0, 5.5]),
        (0.0, 0.0, [-1.0, -0.5, 0.0, 0.5, 1.0]),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(expected)


def test_tick_labels_lose_decimals_only_where_all_are_zero() -> None:
    assert tick_labels([0.0, 1.0, 2.0], number3) == ["0", "1", "2"]
    assert tick_labels([0.5, 1.0], number2) == ["0.5", "1.0"]
    assert tick_labels([0.25, 1.0], number2) == ["0.25", "1.00"]
    assert tick_labels([0.0, 0.05], percent) == ["0\N{NO-BREAK SPACE}%", "5\N{NO-BREAK SPACE}%"]
    assert tick_labels([10_000.0, 10.05], number2) == ["10,000.00", "10.05"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.35, 6.4, [0.2, 0.5, 1, 2, 5, 10]),
        (1.0, 1.0, [1, 2]),
        (2.0, 5.0, [2, 5]),
        (0.003, 4.0, [0.001, 0.01, 0.1, 1, 10]),
    ],
)
def test_logarithmic_ticks_enclose(low: float, high: float, expected: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(expected)


def test_on_a_logarithmic_scale_equal_factors_are_equal_distances() -> None:
    path = re.search(r'class="line tone-1" d="([^"]+)"', drawn([1.0, 10.0, 100.0], log=True))
    assert path
    assert path[1] == "M0.0 1000.0L500.0 500.0L1000.0 0.0"
    assert drawn([0.0, 10.0], log=True) == drawn([0.0, 10.0])


def test_given_labels_set_the_reach_of_the_axis() -> None:
    picture = drawn([0.0, 1.0], x_labels=[(-1.0, "low"), (3.0, "high")])
    path = re.search(r'class="line tone-1" d="([^"]+)"', picture)
    assert path
    assert path[1] == "M250.0 1000.0L500.0 0.0"
    assert 'class="last" style="left:100.00%">high<' in picture


def test_thinning_keeps_both_ends_and_no_point_twice() -> None:
    kept = kept_points(5_003, 1200)
    assert kept[0] == 0
    assert kept[-1] == 5_002
    assert len(kept) == len(set(kept)) == 1200
    assert kept_points(3, 16) == [0, 1, 2]
    assert kept_points(0) == []


def test_a_line_goes_up_where_values_rise_and_spans_the_width() -> None:
    path = re.search(r'class="line tone-1" d="([^"]+)"', drawn([0.0, 1.0]))
    assert path
    assert path[1] == "M0.0 1000.0L1000.0 0.0"


def test_a_gap_lifts_the_pen() -> None:
    path = re.search(r'class="line tone-1" d="([^"]+)"', drawn([0.0, 1.0, None, 1.0, 0.0]))
    assert path
    assert path[1].count("M") == 2
    assert path[1].count("L") == 2


def test_no_points_and_no_values_still_draw() -> None:
    assert "<svg" in drawn([])
    assert "<svg" in drawn([None, None])
    assert "<svg" in drawn([float("nan"), 1.0])


def test_words_are_escaped() -> None:
    made = chart("k", "T", "E.", [0.0], ["<b>"], [Line("<i>", [1.0])], number2, x_title="<u>", marks=[(0.0, "<s>")])
    assert not re.search(r"<(b|i|u|s)>", str(made.picture))


def test_the_summary_says_the_ends_and_the_extremes() -> None:
    made = chart("k", "T", "E.", [0, 1, 2], ["Mon", "Tue", "Wed"], [Line("a", [1.0, 9.0, 3.0])], number2, x_title="day")
    assert made.data["summary"] == "From Mon to Wed. a: 1.00 to 3.00, between 1.00 and 9.00."


def test_intervals_lie_on_one_scale() -> None:
    made = intervals(
        "C", "E.", "W", [("a", 0.1, 0.0, 0.2, "r"), ("b", -0.1, -0.2, 0.0, "r"), ("c", None, None, None, "r")], number2
    )
    a, b, c = made.rows
    assert a.left == pytest.approx(made.zero)
    assert a.left is not None
    assert b.left is not None
    assert a.left + a.width - b.left == pytest.approx(100 * 0.4 / (0.4 * 1.12), abs=0.1)
    assert b.dot < made.zero < a.dot
    assert c.left is None
    assert c.bounds == ABSENT


@pytest.mark.parametrize(
    ("form", "value", "shown"),
    [
        (percent, 0.1234, "12.3\N{NO-BREAK SPACE}%"),
        (signed_percent, -0.00001, "0.0\N{NO-BREAK SPACE}%"),
        (signed_percent, -0.05, "−5.0\N{NO-BREAK SPACE}%"),
        (signed_percent, 0.05, "+5.0\N{NO-BREAK SPACE}%"),
        (number2, None, ABSENT),
        (number2, float("nan"), ABSENT),
        (number2, float("inf"), ABSENT),
        (integer, True, ABSENT),
        (chance, 0.0004, "<\N{NO-BREAK SPACE}0.001"),
        (chance, 0.001, "0.001"),
        (chance, 0.0554, "0.055"),
        (chance, None, ABSENT),
        (integer, 1_234_567, "1,234,567"),
    ],
)
def test_numbers_as_shown(form: object, value: object, shown: str) -> None:
    assert form(value) == shown  # type: ignore[operator]


def test_plural() -> None:
    assert plural(1, "run") == "1 run"
    assert plural(2, "run") == "2 runs"
