"""What a page is made of: plain values that the templates know how to draw, one macro a kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from markupsafe import Markup

Light = Literal["pass", "caution", "fail", "skipped"]


@dataclass(frozen=True)
class Gate:
    """One traffic light: what was checked, how it stands, and why."""

    key: str
    title: str
    light: Light
    reason: str


@dataclass(frozen=True)
class Facts:
    """Labelled values: (label, value, what it means)."""

    kind: ClassVar[str] = "facts"
    items: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Table:
    """A table whose first column heads its rows.

    ``text`` columns are aligned to the left, the others are figures; ``mono`` ones hold code; a folded one opens on
    demand.
    """

    kind: ClassVar[str] = "table"
    caption: str
    explain: str
    columns: list[str]
    rows: list[list[str]]
    text: frozenset[int] = frozenset({0})
    mono: frozenset[int] = frozenset()
    folded: bool = False


@dataclass(frozen=True)
class Interval:
    """One row of an interval picture: a value and its bounds, placed in percent of the picture's width."""

    label: str
    value: str
    bounds: str
    reading: str
    left: float | None
    width: float
    dot: float


@dataclass(frozen=True)
class Intervals:
    """Estimates with their intervals on one common scale; ``zero`` is the place of zero in percent."""

    kind: ClassVar[str] = "intervals"
    caption: str
    explain: str
    what: str
    rows: list[Interval]
    zero: float


@dataclass(frozen=True)
class Cell:
    """One cell of a matrix: its text, and how strongly it is tinted (0 to 100) and in which colour."""

    text: str
    strength: int = 0
    tone: Literal["main", "loss"] = "main"


@dataclass(frozen=True)
class Matrix:
    """A tinted table with headings on both sides, such as a confusion matrix or months by years."""

    kind: ClassVar[str] = "matrix"
    caption: str
    explain: str
    corner: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class Chart:
    """A picture with its one-sentence explanation and its figures as a table for those who can't see it.

    With ``latest`` the legend shows the last value of each series while nothing is pointed at.
    """

    kind: ClassVar[str] = "chart"
    key: str
    title: str
    explain: str
    picture: Markup
    data: dict[str, Any]
    numbers: Table
    latest: bool = True


@dataclass(frozen=True)
class Quotes:
    """Examples of text from the data, each with a heading and labelled passages."""

    kind: ClassVar[str] = "quotes"
    caption: str
    explain: str
    items: list[tuple[str, list[tuple[str, str]]]]


@dataclass(frozen=True)
class Notice:
    """One sentence that stands where something is missing or needs care."""

    kind: ClassVar[str] = "notice"
    text: str
    light: Light = "skipped"


@dataclass(frozen=True)
class Group:
    """Small blocks that stand side by side where the page is wide enough."""

    kind: ClassVar[str] = "group"
    blocks: Sequence[Chart | Table | Matrix]


Block = Group | Facts | Table | Intervals | Matrix | Chart | Quotes | Notice


@dataclass(frozen=True)
class Section:
    """A part of the page with its heading, an introduction and its blocks."""

    key: str
    title: str
    lead: str
    blocks: list[Block] = field(default_factory=list)
