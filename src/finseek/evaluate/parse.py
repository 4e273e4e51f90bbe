"""The strict reading of an answer: one well-formed action, or a reason why there is none.

An answer is a sequence of the elements ``<action>``, ``<reasoning>`` and ``<support>``, each at most once,
none inside another, with nothing but white space around them. What departs from that is unscored, unless the
rules of ``REPAIRS`` make it well-formed; they are tried in their order until it is, and each one used is named.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass

from finseek.core.actions import Action, parse_action
from finseek.core.errors import InputError
from finseek.evaluate.records import SCORED

ELEMENTS = ("action", "reasoning", "support")
_NAMES = "|".join(ELEMENTS)
_TAG = re.compile(rf"<(/?)({_NAMES})>")
_LOOSE_TAG = re.compile(rf"<\s*(/?)\s*({_NAMES})\s*>", re.IGNORECASE)
_ELEMENT = re.compile(rf"<({_NAMES})>.*?</\1>", re.DOTALL)
_ACTION = re.compile("<action>(.*?)</action>", re.DOTALL)
_WORDS = re.compile(r"[A-Za-z]+((\s+|_|-)[A-Za-z]+)?")
_JOINED = re.compile(r"<action>\s*strong(buy|sell)\s*</action>", re.IGNORECASE)
_DOUBT = re.compile("buy|sell|hold|bought|sold|long|short|<.?think", re.IGNORECASE)
_TAGS = [f"<{slash}{name}>" for slash in ("", "/") for name in ELEMENTS]
_DECORATION = "*_`\"'[]().!“”‘’ \t\n"

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
    """Read the action of an answer, with repairs where the strict form fails; nothing is guessed.

    Without an action the status is the reason of the text as it came.
    """
    first = parsed = parse_strictly(text)
    used: list[str] = []
    for name, (_, repair) in REPAIRS.items():
        if parsed.action:
            break
        repaired = repair(text)
        if repaired != text:
            text, parsed = repaired, parse_strictly(repaired)
            used.append(name)
    return Parsed(parsed.action, SCORED, tuple(used)) if parsed.action else first


def parse_strictly(text: str) -> Parsed:
    """Read the action of a well-formed answer."""
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
    word = content["action"].strip()
    try:
        if _WORDS.fullmatch(word):
            return Parsed(parse_action(word), SCORED)
    except InputError:
        pass
    return Parsed(None, "unknown_action")


def _without_thinking(text: str) -> str:
    head, end, answer = text.partition("</think>")
    return answer if end and "<think>" not in head.lstrip().removeprefix("<think>") + answer else text


def _unescaped(text: str) -> str:
    return text if _LOOSE_TAG.search(text) else html.unescape(text)


def _plain_tags(text: str) -> str:
    return _LOOSE_TAG.sub(lambda tag: f"<{tag[1]}{tag[2].lower()}>", text)


def _completed(text: str) -> str:
    head, bracket, rest = text.rpartition("<")
    begun = bracket and any(tag.startswith(f"<{rest}") and tag != f"<{rest}" for tag in _TAGS)
    whole = head if begun else text
    tags = list(_TAG.finditer(whole))
    if whole == text and (not tags or tags[-1][1]):
        return text
    return f"{whole}</{tags[-1][2]}>" if tags and not tags[-1][1] and tags[-1][2] != "action" else whole


def _elements_alone(text: str) -> str:
    around = _ELEMENT.sub(" ", text)
    if not around.strip() or _TAG.search(around) or _DOUBT.search(around):
        return text
    return "".join(element[0] for element in _ELEMENT.finditer(text))


def _undecorated(text: str) -> str:
    return _ACTION.sub(lambda found: f"<action>{found[1].strip(_DECORATION)}</action>", text)


def _parted(text: str) -> str:
    return _JOINED.sub(r"<action>STRONG_\1</action>", text)


REPAIRS: dict[str, tuple[str, Callable[[str], str]]] = {
    "thinking": ("one thinking block before the answer, up to </think>, is set aside", _without_thinking),
    "escaped_tags": ("an answer whose tags are all written as HTML entities is unescaped", _unescaped),
    "tag_case": ("tags in other case or with white space inside are read as plain tags", _plain_tags),
    "cut_off": ("reasoning or support cut off at the very end, after a complete action, is closed", _completed),
    "text_around": (
        "text outside the elements goes, if it has no word of trading or thinking",
        _elements_alone,
    ),
    "decoration": ("emphasis, quotation marks, brackets and full stops around the action's name go", _undecorated),
    "joined_words": ("StrongBuy and StrongSell are read as their two words", _parted),
}
