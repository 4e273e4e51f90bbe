"""Chat templates as data: what stands around the messages, and what of it the model must learn to write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from finseek.core.errors import InputError

PROMPT, ACTION, ANSWER = 0, 1, 2

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
SPECIAL_TOKENS = (BOS, EOS, PAD, USER, ASSISTANT)


class Message(NamedTuple):
    """One turn; ``span`` is where the action lies in an assistant's content, [start, end) in characters."""

    role: str
    content: str
    span: tuple[int, int] | None = None


class ChatTemplate(Protocol):
    """What an encoder asks of a template."""

    @property
    def end(self) -> str:
        """What the model must write at the end of an answer."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """Markers that must be single tokens of the tokenizer."""

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """The conversation in pieces whose texts, joined, are its rendering."""

    def prompt(self, messages: Sequence[Message]) -> list[Segment]:
        """The conversation up to where the assistant begins to answer."""


class Segment(NamedTuple):
    """A piece of the rendered conversation.

    Attributes:
        text: the piece.
        role: 0 prompt, 1 the action and its closing tag, 2 the rest of the answer and its end.
        markup: written by the template, so that special tokens in it are special; content is never markup.
    """

    text: str
    role: int
    markup: bool


@dataclass(frozen=True)
class Template:
    """What stands before and after the messages of each role.

    Attributes:
        name: as the config names it.
        begin: before everything.
        system: before and after a system message.
        user: before and after a user's message.
        assistant: before an answer, and after it as its end, which the model learns to write.
        between: after the end of an answer, not learned.
        tokens: markers that must be single tokens of the tokenizer.
        jinja: the same as a Hugging Face chat template.
    """

    name: str
    begin: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    between: str
    tokens: tuple[str, ...]
    jinja: str

    @property
    def end(self) -> str:
        """What the model must write at the end of an answer."""
        return self.assistant[1]

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """The conversation in pieces whose texts, joined, are its rendering."""
        pieces = [Segment(self.begin, PROMPT, True)]
        for message in messages:
            if message.role == "assistant":
                before, end = self.assistant
                pieces.append(Segment(before, PROMPT, True))
                pieces += answer_segments(message.content, message.span)
                pieces.append(Segment(end, ANSWER, True))
                pieces.append(Segment(self.between, PROMPT, True))
            else:
                before, after = self.system if message.role == "system" else self.user
                pieces.append(Segment(before, PROMPT, True))
                pieces.append(Segment(message.content, PROMPT, False))
                pieces.append(Segment(after, PROMPT, True))
        return [piece for piece in pieces if piece.text]

    def prompt(self, messages: Sequence[Message]) -> list[Segment]:
        """The conversation up to where the assistant begins to answer."""
        pieces = self.segments(messages)
        return [*pieces, Segment(self.assistant[0], PROMPT, True)]


def answer_segments(content: str, span: tuple[int, int] | None) -> list[Segment]:
    """An answer cut at its action."""
    if span is None:
        return [Segment(content, ANSWER, False)]
    start, end = span
    return [
        Segment(content[:start], ANSWER, False),
        Segment(content[start:end], ACTION, False),
        Segment(content[end:], ANSWER, False),
    ]


_DEEPSEEK_JINJA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '<｜Assistant｜>' + message['content'] + eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)

DEEPSEEK = Template(
    "deepseek", BOS, ("", ""), (USER, ""), (ASSISTANT, EOS), "", (BOS, EOS, USER, ASSISTANT), _DEEPSEEK_JINJA
)

_CHATML_JINJA = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

CHATML = Template(
    "chatml",
    "",
    ("<|im_start|>system\n", "<|im_end|>\n"),
    ("<|im_start|>user\n", "<|im_end|>\n"),
    ("<|im_start|>assistant\n", "<|im_end|>"),
    "\n",
    ("<|im_start|>", "<|im_end|>"),
    _CHATML_JINJA,
)

_ALPACA_JINJA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ '### Response:\\n' + message['content'] + eos_token + '\\n\\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)

# BOS and EOS stand for the tokenizer's own in these two.
ALPACA = Template(
    "alpaca",
    BOS,
    ("", "\n\n"),
    ("### Instruction:\n", "\n\n"),
    ("### Response:\n", EOS),
    "\n\n",
    (BOS, EOS),
    _ALPACA_JINJA,
)

_SIMPLE_JINJA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token + '\\n' }}"
    "{% else %}{{ message['content'] + '\\n' }}{% endif %}{% endfor %}"
)

SIMPLE = Template("simple", BOS, ("", "\n"), ("", "\n"), ("", EOS), "\n", (BOS, EOS), _SIMPLE_JINJA)

TEMPLATES: dict[str, Template] = {template.name: template for template in (DEEPSEEK, CHATML, ALPACA, SIMPLE)}


def load_template(name: str, tokenizer: Path) -> Template:
    """A template by name, with the begin and end tokens of a tokenizer folder where it uses them.

    Raises:
        InputError: no such template.
    """
    if name not in TEMPLATES:
        raise InputError(f"prompt.template {name!r} is none of {', '.join(TEMPLATES)}, tokenizer: choose one")
    template = TEMPLATES[name]
    if template not in (ALPACA, SIMPLE):
        return template
    own = special_tokens(tokenizer)
    begin, end = own.get("bos_token", ""), own.get("eos_token", "")
    if not end:
        raise InputError(f"{tokenizer} names no eos_token, with which the {name} template ends an answer")
    tokens = tuple(token for token in (begin, end) if token)
    return replace(template, begin=begin, assistant=(template.assistant[0], end), tokens=tokens)


def described(file: Path) -> dict[str, Any]:
    """A JSON object that describes a tokenizer.

    Raises:
        InputError: it is none.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON ({error}): take the tokenizer's files from its maker again") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} holds a {type(content).__name__}, where a JSON object belongs")
    return content


def special_tokens(tokenizer: Path) -> dict[str, str]:
    """The named special tokens of a Hugging Face tokenizer folder, as texts.

    Raises:
        InputError: its config is no JSON.
    """
    config = tokenizer / "tokenizer_config.json"
    named = described(config) if config.is_file() else {}
    tokens = {key: value for key, value in named.items() if key.endswith("_token") and value}
    return {key: str(value.get("content")) if isinstance(value, dict) else str(value) for key, value in tokens.items()}
