"""The one way in which a reader says that a record or a file is not taken."""

from __future__ import annotations


class Refused(Exception):
    """A record or file is not taken; readers turn it into a Reject, it never leaves the package."""

    def __init__(self, reason: str, detail: str, line: int | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = " ".join(detail.split())
        self.line = line


def shown(value: object, width: int = 60) -> str:
    """A value as a message shows it: quoted, escaped, cut."""
    text = str(value)
    return ascii(text[:width]) + ("…" if len(text) > width else "")


def cut(text: str, limit: int) -> str:
    """The beginning of a text, and how much of it is missing."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} more characters)"
