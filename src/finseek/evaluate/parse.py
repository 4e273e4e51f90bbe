"""The strict reading of an answer: one well-formed action, or a reason why there is none.

An answer is a sequence of the elements ``<action>``, ``<reasoning>`` and ``<support>``, each at most once,
none inside another, with nothing but white space around them. Whatever departs from that is unscored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from finseek.core.actions import Action, parse_action
from finseek.core.errors import InputError
from finseek.evaluate.records import SCORED

ELEMENTS = ("action", "reasoning", "support")
_TAG = re.compile(rf"<(/?)({'|'.join(ELEMENTS)})>")

REASONS = {
    "empty": "the answer has no text",
    "no_action": "there is no action element",
    "several_actions": "there is more than one action element",
    "unknown_action": "the action is none of the five",
    "nested_tags": "a tag opens inside another element",
    "unclosed_tag": "an element is not closed; most often the answer was cut off",
    "unopened_tag": "an element is closed that was not opened",
    "repeated_element": "reasoning or support comes twice",
    "text_outside": "text stands outside the elements",
    "tie": "two actions are equally probable (score mode)",
    "not_finite": "a log-probability is not a number (score mode)",
}


@dataclass(frozen=True)
class Parsed:
    """An action, or the reason why there is none (a key of ``REASONS``), and the repairs that were needed."""

    action: Action | None
    status: str
    repairs: tuple[str, ...] = ()


def parse_answer(text: str) -> Parsed:
    """Read the action of an answer; nothing is guessed."""
    if not text.strip():
        return Parsed(None, "empty")
    content: dict[str, str] = {}
    inside: tuple[str, int] | None = None
    outside, end, fault = "", 0, ""
    if len(re.findall("<action>", text)) > 1:
        return Parsed(None, "several_actions")
    for tag in _TAG.finditer(text):
        closing, name = bool(tag[1]), tag[2]
        if inside is None:
            outside += text[end : tag.start()]
        if not closing and inside is not None:
            fault = fault or "nested_tags"
        elif not closing:
            inside = (name, tag.end())
        elif inside is None or inside[0] != name:
            fault = fault or ("unopened_tag" if inside is None else "nested_tags")
        else:
            if name in content:
                fault = fault or "repeated_element"
            content[name] = text[inside[1] : tag.start()]
            inside = None
        end = tag.end()
    if inside is None:
        outside += text[end:]
    fault = fault or ("unclosed_tag" if inside else "")
    if fault:
        return Parsed(None, fault)
    if "action" not in content:
        return Parsed(None, "no_action")
    if outside.strip():
        return Parsed(None, "text_outside")
    try:
        return Parsed(parse_action(content["action"]), SCORED)
    except InputError:
        return Parsed(None, "unknown_action")
