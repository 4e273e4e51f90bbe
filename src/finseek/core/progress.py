"""How long work tells its caller where it stands, without knowing of a terminal."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then by long work; must be cheap and must not raise."""

    def __call__(self, label: str, done: float, total: float | None, unit: str) -> None:
        """Say that ``done`` of ``total`` ``unit`` (None: unknown) of ``label`` are finished."""


def silent(label: str, done: float, total: float | None, unit: str) -> None:
    """A progress that says nothing."""
