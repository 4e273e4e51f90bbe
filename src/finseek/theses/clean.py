"""From raw fields to a thesis: every rule that a record must pass, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date

import msgspec

from finseek.core.actions import ACTIONS, Action, parse_action
from finseek.core.errors import InputError
from finseek.theses.dates import parse_date
from finseek.theses.options import ThesesOptions
from finseek.theses.records import Reject, Thesis, thesis_uid
from finseek.theses.refuse import Refused, cut, shown

KNOWN = frozenset({"ticker", "as_of_date", "reasoning", "support", "action", "instruction", "input", "output"})
ALIASES = {"symbol": "ticker", "stock": "ticker"}
CUSTOM = ("output", "instruction", "input")
ANSWER_TAGS = ("action", "reasoning", "support")

_TICKER = re.compile(r"[A-Z0-9^][A-Z0-9.\-^=_/]{0,23}")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]")
_ANSWER_TAG = re.compile(rf"</?\s*(?:{'|'.join(ANSWER_TAGS)})\b", re.IGNORECASE)
_ACTION_IN_OUTPUT = re.compile(r"<action>([^<]*)</action>")


def field_name(name: str) -> str:
    """The canonical name of a column, element or attribute: lower case, underscores, aliases resolved."""
    plain = name.rpartition("}")[2].strip().lower().replace("-", "_").replace(" ", "_")
    return ALIASES.get(plain, plain)


@dataclass(slots=True)
class Raw:
    """What a reader found of one thesis, before any rule but those of its format.

    Attributes:
        fields: known fields, by canonical name, as text.
        indicators: every other field, as text.
        source_file: where it came from.
        index: place in that file, from 0.
        line: line in that file, from 1.
        problem: the rule of the format that it breaks.
        salvaged: the file around it was broken.
        is_xml: XML admits no control character below U+0020, so plain ASCII needs no search for one.
    """

    fields: dict[str, str]
    indicators: dict[str, str]
    source_file: str
    index: int
    line: int | None
    problem: Refused | None = None
    salvaged: bool = False
    is_xml: bool = False


@dataclass(slots=True)
class Cleaner:
    """Applies the rules of one set of options, record by record.

    Attributes:
        options: the rules.
        contents: hash of the content of the first thesis of each uid.
        conflicting: uids of which two different theses came in; none of them may stay.
    """

    options: ThesesOptions
    contents: dict[str, int] = field(default_factory=dict)
    conflicting: set[str] = field(default_factory=set)
    _tickers: dict[str, str] = field(default_factory=dict)
    _dates: dict[str, date] = field(default_factory=dict)
    _actions: dict[str, Action] = field(default_factory=dict)

    def clean(self, raw: Raw) -> Thesis | Reject:
        """One raw record as a thesis, or the first reason why it is none."""
        try:
            if raw.problem is not None:
                raise raw.problem
            thesis = self._thesis(raw)
        except Refused as refused:
            line = raw.line if refused.line is None else refused.line
            limit = self.options.max_raw_chars
            found = {name: cut(value, limit) for name, value in {**raw.fields, **raw.indicators}.items()}
            return Reject(refused.reason, refused.detail, raw.source_file, raw.index, line, found)
        content = hash((thesis.reasoning, thesis.support, thesis.action, thesis.instruction, thesis.input,
                        thesis.output, *sorted(thesis.indicators.items())))  # fmt: skip
        if thesis.uid not in self.contents:
            self.contents[thesis.uid] = content
            return thesis
        if self.contents[thesis.uid] == content:
            return _withdrawn("duplicate", _DUPLICATE, thesis, raw.line)
        self.conflicting.add(thesis.uid)
        return _withdrawn("conflicting_duplicate", _CONFLICT, thesis, raw.line)

    def settle(self, records: Iterable[Thesis | Reject]) -> Iterator[Thesis | Reject]:
        """Take back the first thesis of each conflict, and the duplicates of it.

        Needed once, after the last record, and only where ``conflicting`` is not empty.
        """
        for record in records:
            if isinstance(record, Thesis):
                conflicts = record.uid in self.conflicting
                yield _withdrawn("conflicting_duplicate", _CONFLICT, record, None) if conflicts else record
            elif (
                record.reason == "duplicate" and isinstance(record.raw, dict) and record.raw["uid"] in self.conflicting
            ):
                yield msgspec.structs.replace(record, reason="conflicting_duplicate", detail=_CONFLICT)
            else:
                yield record

    def _thesis(self, raw: Raw) -> Thesis:
        fields = raw.fields
        ticker = self._tickers.get(fields.get("ticker", "")) or self._ticker(fields.get("ticker", ""))
        as_of_date = self._date(fields.get("as_of_date"))
        output = instruction = input_ = None
        if not fields.keys().isdisjoint(CUSTOM):
            output, instruction, input_ = (self._text(name, raw) or None for name in CUSTOM)
        action = self._action(fields.get("action"), output)
        reasoning = self._text("reasoning", raw, required=output is None)
        support = self._text("support", raw, required=output is None)
        if raw.indicators:
            for name, value in raw.indicators.items():
                self._check_characters(name, value, raw.is_xml)
        return Thesis(
            thesis_uid(ticker, as_of_date),
            ticker,
            as_of_date,
            reasoning,
            support,
            action,
            raw.indicators,
            instruction,
            input_,
            output,
            raw.source_file,
            raw.index,
            raw.salvaged,
        )

    def _ticker(self, text: str) -> str:
        ticker = text.strip().upper()
        if not ticker:
            raise Refused("missing_ticker", "no ticker on the thesis or above it: name one")
        if not _TICKER.fullmatch(ticker):
            raise Refused("bad_ticker", f"ticker {shown(ticker)} is no symbol: letters, digits and .-^=_/ only")
        self._tickers[text] = ticker
        return ticker

    def _date(self, text: str | None) -> date:
        if text is None or not text.strip():
            raise Refused("missing_date", "no as-of date: add as-of-date")
        if text in self._dates:
            return self._dates[text]
        day = parse_date(text, self.options.date_order)
        if day < self.options.earliest_date:
            raise Refused("impossible_date", f"date {day} is before theses.earliest_date {self.options.earliest_date}")
        if self.options.latest_date is not None and day > self.options.latest_date:
            raise Refused("future_date", f"date {day} is after theses.latest_date {self.options.latest_date}")
        self._dates[text] = day
        return day

    def _action(self, text: str | None, output: str | None) -> Action:
        if text is None and output is not None:
            named = _ACTION_IN_OUTPUT.findall(output)
            if len(named) > 1:
                raise Refused("duplicate_field", f"the output names {len(named)} actions: one is allowed")
            text = named[0] if named else None
        if text is None or not text.strip():
            raise Refused("missing_action", f"no action: add one of {', '.join(ACTIONS)}")
        if text in self._actions:
            return self._actions[text]
        if text.strip().lower() == "error":
            raise Refused("action_is_error", "action 'error': the teacher failed here; write this thesis again")
        try:
            action = parse_action(text)
        except InputError as error:
            raise Refused("unknown_action", str(error)) from None
        self._actions[text] = action
        return action

    def _text(self, name: str, raw: Raw, *, required: bool = False) -> str:
        plain = raw.fields.get(name, "").strip()
        if required and len(plain) < self.options.min_text_chars and name in self.options.required:
            if not plain:
                raise Refused(f"missing_{name}", f"no {name}: add it, or take it out of theses.required")
            limit = self.options.min_text_chars
            raise Refused("text_too_short", f"{name} has {len(plain)} characters, theses.min_text_chars is {limit}")
        if not plain:
            return plain
        if len(plain) > self.options.max_text_chars:
            limit = self.options.max_text_chars
            raise Refused("text_too_long", f"{name} has {len(plain)} characters, theses.max_text_chars is {limit}")
        self._check_characters(name, plain, raw.is_xml)
        if "<" in plain and name in ANSWER_TAGS and (tag := _ANSWER_TAG.search(plain)):
            raise Refused("tag_in_text", f"{name} holds {shown(tag[0])}, a tag of the answer: remove it")
        return plain

    def _check_characters(self, name: str, text: str, is_xml: bool) -> None:
        if is_xml and text.isascii() and "\x7f" not in text:
            return
        if found := _CONTROL.search(text):
            where = f"U+{ord(found[0]):04X} at character {found.start()}"
            raise Refused("control_character", f"{name} holds {where}: remove it")


_DUPLICATE = "the same thesis of this ticker and date came in before: remove one"
_CONFLICT = "another thesis of this ticker and date says something else: keep the right one"


def _withdrawn(reason: str, detail: str, thesis: Thesis, line: int | None) -> Reject:
    return Reject(reason, detail, thesis.source_file, thesis.index, line, msgspec.to_builtins(thesis))
