"""From a sample to token ids and the role of each, by the segments of the template."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finseek.core.actions import ACTIONS, Action
from finseek.core.errors import ArtifactError, InputError
from finseek.samples.records import Sample
from finseek.samples.templates import ANSWER, PROMPT, ChatTemplate, Message, Segment, load_template

ACTION_OPENING = "<action>"


class Encoded(NamedTuple):
    """Tokens of a sample and what each is.

    Attributes:
        input_ids: int32, shape (T,).
        role: int8, shape (T,): 0 prompt, 1 the action and its closing tag, 2 the rest of the answer and its end.
        truncated: the end of the answer was cut off to fit.
    """

    input_ids: NDArray[np.int32]
    role: NDArray[np.int8]
    truncated: bool


class Encoder:
    """Encodes samples with the tokenizer of a folder and a chat template.

    Each segment of the template is encoded by itself, so a token belongs to one role. Content is encoded as plain
    text even where it spells a special token.

    Args:
        tokenizer: folder with a Hugging Face ``tokenizer.json``.
        template: a name of ``TEMPLATES``, or ``tokenizer`` for the chat template of the folder.

    Raises:
        ArtifactError: the folder holds no tokenizer.
        InputError: an unknown template, or markup that the tokenizer has no special tokens for.
    """

    def __init__(self, tokenizer: Path, template: str = "deepseek") -> None:
        from tokenizers import Tokenizer

        file = Path(tokenizer) / "tokenizer.json"
        try:
            described = json.loads(file.read_bytes())
            self._markup = Tokenizer.from_str(json.dumps(described))
            for added in described.get("added_tokens") or ():
                added["special"] = added["special"] or bool(added["content"].strip())
            self._content = Tokenizer.from_str(json.dumps(described))
        except (OSError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{file} cannot be read ({error}): name a folder with a tokenizer") from error
        except Exception as error:  # the tokenizers library raises bare Exception
            raise ArtifactError(f"{file} is no tokenizer ({error}): name a folder with a tokenizer") from error
        for made in (self._markup, self._content):
            made.no_truncation()
            made.no_padding()
        # What a text spells is text: a thesis that writes <｜Assistant｜> must not end the user's turn.
        self._content.encode_special_tokens = True
        self.template: ChatTemplate = _template(template, Path(tokenizer))
        absent = [token for token in self.template.tokens if self._markup.token_to_id(token) is None]
        if absent:
            raise InputError(
                f"{file} has no token {' or '.join(absent)}, which the {template} template needs: choose another "
                "prompt.template or tokenizer"
            )
        self._markup_ids: dict[str, list[int]] = {}
        self.vocab_size = int(self._markup.get_vocab_size())
        self.end_ids = self._segment_ids(Segment(self.template.end, ANSWER, True))

    def token_id(self, token: str) -> int | None:
        """The id of one token, None if the vocabulary lacks it."""
        found: int | None = self._markup.token_to_id(token)
        return found

    def encode(self, sample: Sample, max_length: int | None = None, *, truncate: bool = False) -> Encoded:
        """Token ids and roles of one sample.

        Args:
            sample: what to encode.
            max_length: most tokens that the model may see.
            truncate: cut the end of an answer that is too long, never its action and never the prompt.

        Raises:
            InputError: it does not fit, or nothing of the answer is left to learn.
        """
        return self.encode_messages(messages_of(sample), max_length, truncate=truncate, label=_label(sample))

    def encode_messages(
        self, messages: Sequence[Message], max_length: int | None = None, *, truncate: bool = False, label: str = ""
    ) -> Encoded:
        """Token ids and roles of a conversation; every answer of it is learned."""
        ids: list[int] = []
        roles: list[int] = []
        for segment in self.template.segments(messages):
            piece = self._segment_ids(segment)
            ids += piece
            roles += [segment.role] * len(piece)
        truncated = max_length is not None and len(ids) > max_length
        if truncated:
            assert max_length is not None
            lost = roles[max_length:]
            if not truncate or 1 in lost:
                raise InputError(
                    f"sample {label} has {len(ids)} tokens, seq_length is {max_length}: raise seq_length, or shorten "
                    "with prompt.max_reasoning_chars and prompt.max_support_chars"
                )
            ids, roles = ids[:max_length], roles[:max_length]
        if not any(roles):
            raise InputError(f"sample {label} leaves no token of an answer to learn from: its mask is empty")
        return Encoded(np.array(ids, dtype=np.int32), np.array(roles, dtype=np.int8), truncated)

    def prompt_ids(self, sample: Sample) -> list[int]:
        """Ids up to and including the marker after which the assistant writes."""
        return self._ids(self.template.prompt(messages_of(sample)[:-1]))

    def action_opening_ids(self) -> list[int]:
        """Ids of ``<action>``, which stand between the prompt (or the reasoning) and the action."""
        return self._segment_ids(Segment(ACTION_OPENING, ANSWER, False))

    def action_ids(self) -> dict[Action, list[int]]:
        """Ids of each action with its closing tag, as they stand in an answer after ``<action>``."""
        return {action: self._segment_ids(Segment(f"{action}</action>", ANSWER, False)) for action in ACTIONS}

    def text_ids(self, text: str) -> list[int]:
        """Ids of plain text."""
        return self._segment_ids(Segment(text, PROMPT, False))

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text of ids."""
        text: str = self._markup.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)
        return text

    def _ids(self, segments: Iterable[Segment]) -> list[int]:
        return [token for segment in segments for token in self._segment_ids(segment)]

    def _segment_ids(self, segment: Segment) -> list[int]:
        if not segment.markup:
            content: list[int] = self._content.encode(segment.text, add_special_tokens=False).ids
            return content
        if segment.text not in self._markup_ids:
            self._markup_ids[segment.text] = self._markup.encode(segment.text, add_special_tokens=False).ids
        return self._markup_ids[segment.text]


def _template(name: str, tokenizer: Path) -> ChatTemplate:
    if name != "tokenizer":
        return load_template(name, tokenizer)
    from finseek.samples.chat_template import load_chat_template

    return load_chat_template(tokenizer)


def messages_of(sample: Sample) -> list[Message]:
    """A sample as two turns, behind those before it where it is the last of a conversation."""
    span = sample.metadata.get("action_span")
    earlier = [Message(turn["role"], turn["content"]) for turn in sample.metadata.get("earlier") or ()]
    return [*earlier, Message("user", sample.input), Message("assistant", sample.output, tuple(span) if span else None)]


def _label(sample: Sample) -> str:
    return f"{sample.metadata.get('ticker', '')} {sample.metadata.get('as_of_date', '')}".strip()
