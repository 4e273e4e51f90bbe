"""The terminal: progress on standard error, results on standard output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

QUIET_SECONDS_BETWEEN_LINES = 15.0
REDRAWS_PER_SECOND = 10.0


def say(line: str) -> None:
    """One line for people, on standard error."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """A result for machines, on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], words: bool = False) -> None:
    """A result for people, on standard output: names and figures, or words in every column."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", header_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if words or place == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # brackets in a cell are brackets
    Console().print(table)


def print_heat_map(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Numbers by two keys, on standard output: the first column names the lines; on a terminal low is red, high green.

    A cell without a number is a dash.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = list(rows)
    numbers = [cell for line in lines for cell in line[1:] if isinstance(cell, float)]
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)

    def shaded(cell: object) -> Text:
        if not isinstance(cell, float):
            return Text("–")
        place = (cell - low) / (high - low) if high > low else 0.5
        red, green = (round(235 - 130 * share) for share in (place, 1 - place))
        return Text(f"{cell:.3g}", style=f"black on rgb({red},{green},110)")

    table = Table(header_style="bold")
    for column in columns:
        table.add_column(column, justify="right")
    for name, *cells in lines:
        table.add_row(str(name), *map(shaded, cells))
    console = Console()
    console.print(title, style="italic", highlight=False)
    console.print(table)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class TerminalProgress:
    """Long work as one line that redraws itself on a terminal, as a plain line now and then elsewhere."""

    def __init__(self, stream: TextIO = sys.stderr, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._redraws = stream.isatty()
        self._label: str | None = None
        self._begin = self._shown = 0.0
        self._first = 0.0

    def __call__(self, label: str, done: float, total: float | None, unit: str) -> None:
        """See :class:`finseek.core.progress.Progress`."""
        now = self._clock()
        if label != self._label:
            self.finish()
            self._label, self._begin, self._first, self._shown = label, now, done, now - 1.0
            if not self._redraws:
                self._shown = now
        complete = total is not None and done >= total
        wait = 1.0 / REDRAWS_PER_SECOND if self._redraws else QUIET_SECONDS_BETWEEN_LINES
        if now - self._shown < wait and not (complete and self._redraws):
            return
        self._shown = now
        spent = now - self._begin
        rate = (done - self._first) / spent if spent > 0 else 0.0
        one, unit, digits = (1e9, "GB", 2) if unit == "B" else (1.0, unit, 0)
        text = f"  {label}: {done / one:,.{digits}f}"
        if total is not None:
            text += f" of {total / one:,.{digits}f} {unit} ({done / total:.0%})" if total else f" {unit}"
        else:
            text += f" {unit}"
        if rate > 0:
            text += f", {rate / one:,.{max(digits, 1)}f} {unit}/s"
            if total is not None and not complete:
                text += f", {_duration((total - done) / rate)} to go"
        self._stream.write(f"\r\x1b[K{text}" if self._redraws else f"{text}\n")
        self._stream.flush()

    def finish(self) -> None:
        """End the line that redraws itself."""
        if self._redraws and self._label is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
        self._label = None
