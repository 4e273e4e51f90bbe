"""The five actions of a thesis, ordered from STRONG_SELL to STRONG_BUY."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Protocol

from finseek.core.errors import InputError


class Action(StrEnum):
    """One of five ordered opinions; the value is the word that files hold."""

    STRONG_SELL = "STRONG_SELL"
    SELL = "SELL"
    HOLD = "HOLD"
    BUY = "BUY"
    STRONG_BUY = "STRONG_BUY"

    @property
    def rank(self) -> int:
        """Place in the order: -2 for STRONG_SELL to 2 for STRONG_BUY."""
        return _RANK[self]

    @property
    def direction(self) -> int:
        """Sign of the position that the action asks for: -1, 0 or 1."""
        return (self.rank > 0) - (self.rank < 0)


class Labelled(Protocol):
    """Anything with an action at a date; a thesis is one."""

    @property
    def ticker(self) -> str:
        """Upper case."""

    @property
    def as_of_date(self) -> date:
        """The session after whose close the action was known."""

    @property
    def action(self) -> Action:
        """The opinion."""


ACTIONS: tuple[Action, ...] = tuple(Action)
_RANK = {action: place - 2 for place, action in enumerate(ACTIONS)}
_BY_WORD = {action.value: action for action in ACTIONS}


def parse_action(text: str) -> Action:
    """Read an action in any case, its words joined by a space, a hyphen or an underscore.

    Raises:
        InputError: for every other text; nothing is guessed.
    """
    word = "_".join(text.strip().upper().replace("-", " ").replace("_", " ").split())
    try:
        return _BY_WORD[word]
    except KeyError:
        raise InputError(f"action {text.strip()[:40]!r} is none of {', '.join(ACTIONS)}") from None
