"""The chat template of any Hugging Face tokenizer, cut into segments.

The template is rendered with a mark in place of each content; what lies between the marks is markup. Then it is
rendered with the contents themselves, and the two must agree: a template that changes a text is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from finseek.core.errors import InputError
from finseek.samples.templates import ANSWER, PROMPT, Message, Segment, answer_segments, described, special_tokens

_MARK = "\ue000{}\ue001"
_MARKS = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True)
class JinjaTemplate:
    """A chat template that is a program.

    Attributes:
        name: as the config names it.
        render: from messages (role, content) to text.
        specials: texts of the tokenizer's added tokens.
        tokens: none in particular; the template names its own.
        end: what the model must write at the end of an answer.
    """

    name: str
    render: Callable[[list[dict[str, str]]], str]
    specials: tuple[str, ...]
    tokens: tuple[str, ...] = ()
    end: str = field(init=False)

    def __post_init__(self) -> None:
        pieces = self._markup([Message("user", ""), Message("assistant", "")])
        object.__setattr__(self, "end", self._end_of(pieces[-1]))
        if not self.end:
            raise InputError(
                f"template {self.name} writes nothing behind an answer, so that a model would never learn to end one:"
                " choose another prompt.template"
            )

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """The conversation in pieces whose texts, joined, are its rendering.

        Raises:
            InputError: the template changes a content, or fails.
        """
        markup = self._markup(messages)
        pieces = [Segment(markup[0], PROMPT, True)]
        for message, behind in zip(messages, markup[1:], strict=True):
            if message.role == "assistant":
                pieces += answer_segments(message.content, message.span)
                end = self._end_of(behind)
                pieces += [Segment(end, ANSWER, True), Segment(behind[len(end) :], PROMPT, True)]
            else:
                pieces += [Segment(message.content, PROMPT, False), Segment(behind, PROMPT, True)]
        pieces = [piece for piece in pieces if piece.text]
        rendered = self.render([{"role": m.role, "content": m.content} for m in messages])
        if rendered != "".join(piece.text for piece in pieces):
            raise InputError(f"template {self.name} changes the text that it is given: choose another prompt.template")
        return pieces

    def prompt(self, messages: Sequence[Message]) -> list[Segment]:
        """What stands before the next answer in training, and so at inference."""
        pieces = self.segments([*messages, Message("assistant", "\ue002")])
        place = next(i for i, piece in enumerate(pieces) if piece.text == "\ue002" and piece.role == ANSWER)
        return pieces[:place]

    def _markup(self, messages: Sequence[Message]) -> list[str]:
        """The markup before, between and behind the contents."""
        marked = [{"role": m.role, "content": _MARK.format(i)} for i, m in enumerate(messages)]
        parts = _MARKS.split(self.render(marked))
        if parts[1::2] != [str(i) for i in range(len(messages))]:
            raise InputError(
                f"template {self.name} leaves out, repeats or moves a message: choose another prompt.template"
            )
        return parts[::2]

    def _end_of(self, behind: str) -> str:
        """The part of the markup behind an answer that the model must learn to write.

        Up to the first added token of the tokenizer; where there is none, all that stands behind a last answer.
        """
        ends = [behind.index(token) + len(token) for token in self.specials if token in behind]
        if ends:
            return behind[: min(ends)]
        last = self._markup([Message("user", ""), Message("assistant", "")])[-1]
        return last if behind.startswith(last) else behind


def load_chat_template(tokenizer: Path) -> JinjaTemplate:
    """The chat template of a tokenizer folder.

    Raises:
        InputError: the folder has none, or it is no template.
    """
    named = special_tokens(tokenizer)
    source = _source(tokenizer)
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _no_clock
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    try:
        template = environment.from_string(source)
    except (TemplateError, SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise InputError(
            f"the chat template of {tokenizer} is broken ({error}): choose another prompt.template"
        ) from None

    def render(messages: list[dict[str, str]]) -> str:
        try:
            return template.render(messages=messages, add_generation_prompt=False, **named)
        except Exception as error:  # a template is a stranger's program and fails as programs do
            raise InputError(
                f"the chat template of {tokenizer} fails ({error}): choose another prompt.template"
            ) from None

    added = described(tokenizer / "tokenizer.json").get("added_tokens") or ()
    return JinjaTemplate("tokenizer", render, tuple(token["content"] for token in added))


def _source(tokenizer: Path) -> str:
    own, config = tokenizer / "chat_template.jinja", tokenizer / "tokenizer_config.json"
    if own.is_file():
        try:
            return own.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{own} is not UTF-8: take the tokenizer's files from its maker again") from None
    found = described(config).get("chat_template") if config.is_file() else None
    if isinstance(found, list):
        found = next((each.get("template") for each in found if each.get("name") == "default"), None)
    if not isinstance(found, str):
        raise InputError(f"{tokenizer} has no chat template: set prompt.template to deepseek, alpaca or simple")
    return found


class _Generation(Extension):
    """``{% generation %}`` marks answers for masks of others; here it only renders what it holds."""

    tags = {"generation"}  # noqa: RUF012  (the name and type that jinja2 asks for)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _no_clock(_: str) -> NoReturn:
    raise TemplateError("it asks for the date of today, and the same sample must always give the same tokens")
