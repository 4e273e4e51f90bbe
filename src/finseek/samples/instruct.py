"""Instruction data: columns to conversations, with the semantics of Unsloth's dataset functions.

A row is a mapping of columns. ``to_sharegpt`` merges columns into a prompt and rows into conversations,
``standardize_sharegpt`` gives every conversation the roles system, user and assistant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.core.errors import InputError

RANDOM_STATE = 3407
Turn = dict[str, str]
Renderer = Callable[[Mapping[str, Any]], str]

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "input": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "output": "assistant",
}

_PIECE = re.compile(r"\[\[(?P<block>.*?)\]\]|\{\{|\}\}|\{(?P<column>[^{}]*)\}|[{}]|\[\[|\]\]", re.DOTALL)


def compile_prompt(merged_prompt: str, columns: Sequence[str], *, blank_is_empty: bool = False) -> Renderer:
    """A function from a row to its prompt.

    ``{column}`` is the column's text, None the empty text; ``{{`` and ``}}`` are braces. A ``[[…]]`` block must hold a
    column and is rendered unless its first column is "" or None; braces in the data are data.

    Args:
        merged_prompt: the template.
        columns: that exist.
        blank_is_empty: a first column of white space alone counts as empty too.

    Raises:
        InputError: a column that does not exist, a block without one, a brace or bracket without its other half.
    """
    pieces = _pieces(merged_prompt, set(columns), nested=False)

    def render(row: Mapping[str, Any]) -> str:
        text = ""
        for literal, column, block in pieces:
            if block is not None:
                decides = row[block[0]]
                if decides is None or decides == "" or (blank_is_empty and not str(decides).strip()):
                    continue
                for inner, name, _ in block[1]:
                    text += inner if name is None else _text(row[name])
            else:
                text += literal if column is None else _text(row[column])
        return text

    return render


def columns_of(merged_prompt: str) -> list[str]:
    """The columns that a template names, in their order."""
    found = (match.groupdict() for match in _PIECE.finditer(merged_prompt))
    return [
        name
        for piece in found
        for name in (columns_of(piece["block"]) if piece["block"] is not None else [piece["column"]])
        if name is not None
    ]


Piece = tuple[str, str | None, Any]


def _pieces(template: str, columns: set[str], *, nested: bool) -> list[Piece]:
    pieces: list[Piece] = []
    place = 0
    for found in _PIECE.finditer(template):
        pieces.append((template[place : found.start()], None, None))
        place = found.end()
        if found["block"] is not None and not nested:
            inner = _pieces(found["block"], columns, nested=True)
            first = next((column for _, column, _ in inner if column is not None), None)
            if first is None:
                raise InputError(
                    f"merged_prompt: the block {found[0]!r} holds no {{column}}: add one or take the [[ ]] away"
                )
            pieces.append(("", None, (first, inner)))
        elif found["column"] is not None:
            if found["column"] not in columns:
                known = ", ".join(sorted(columns))
                raise InputError(
                    f"merged_prompt: {found[0]} is no column: there are {known}; write {{{{ }}}} for braces"
                )
            pieces.append(("", found["column"], None))
        elif found[0] in ("{{", "}}"):
            pieces.append((found[0][0], None, None))
        else:
            raise InputError(f"merged_prompt: {found[0]!r} at character {found.start()} lacks its other half")
    pieces.append((template[place:], None, None))
    return [piece for piece in pieces if piece != ("", None, None)]


def _text(value: object) -> str:
    return "" if value is None else str(value)


def permutations(rows: int, conversation_extension: int, random_state: int = RANDOM_STATE) -> list[NDArray[np.int64]]:
    """Which source rows stand in place 0, 1, … k−1 of each conversation; each an array of shape (rows,).

    Place 0 is the row itself, place j is ``default_rng(random_state + j).permutation(rows)``, so every source row
    appears exactly k times. Split before this: afterwards train and validation share rows.

    Raises:
        InputError: an extension below 1.
    """
    if conversation_extension < 1:
        raise InputError(f"conversation_extension {conversation_extension} must be 1 (no extension) or more")
    later = [np.random.default_rng(random_state + j).permutation(rows) for j in range(1, conversation_extension)]
    return [np.arange(rows), *later]


def to_sharegpt(
    rows: Sequence[Mapping[str, Any]],
    merged_prompt: str = "",
    merged_column_name: str = "instruction",
    output_column_name: str = "output",
    conversation_extension: int = 1,
    random_state: int = RANDOM_STATE,
    *,
    blank_is_empty: bool = False,
) -> list[dict[str, list[Turn]]]:
    """Rows as conversations of ``{"from": "human" | "gpt", "value"}``, one a row.

    Args:
        rows: with the columns of the first one.
        merged_prompt: template of the human's text; empty takes the column ``merged_column_name`` as it is.
        merged_column_name: see above.
        output_column_name: the answer.
        conversation_extension: turns a conversation; row i holds source row i, then rows of seeded permutations.
        random_state: seed of the permutations.
        blank_is_empty: see :func:`compile_prompt`.

    Raises:
        InputError: a column is missing, or the template is wrong.
    """
    columns = list(rows[0]) if rows else []
    if rows:
        render = prompt_renderer(columns, merged_prompt, merged_column_name, output_column_name, blank_is_empty)
    turns = [
        [{"from": "human", "value": render(row)}, {"from": "gpt", "value": _text(row[output_column_name])}]
        for row in rows
    ]
    order = permutations(len(rows), conversation_extension, random_state)
    return [
        {"conversations": [turn for source in places for turn in turns[source]]}
        for places in zip(*(indices.tolist() for indices in order), strict=True)
    ]


def prompt_renderer(
    columns: Sequence[str], merged_prompt: str, merged_column_name: str, output_column_name: str, blank_is_empty: bool
) -> Renderer:
    """The renderer of the human's text, after a check of all columns that are needed."""
    needed = [output_column_name] if merged_prompt else [output_column_name, merged_column_name]
    missing = [name for name in needed if name not in columns]
    if missing:
        raise InputError(f"column {missing[0]!r} is not there: there are {', '.join(columns)}; name the right one")
    if merged_prompt:
        return compile_prompt(merged_prompt, columns, blank_is_empty=blank_is_empty)
    return lambda row: _text(row[merged_column_name])


def standardize_sharegpt(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Conversations with ``role`` (system, user, assistant) and ``content``; rows without conversations are unchanged.

    The role key is the one whose values are all known names of roles, case and white space ignored; the other is the
    content.

    Raises:
        InputError: a turn has other than two keys, no key is the role key, or a role is none.
    """
    if not any("conversations" in row for row in rows):
        return [dict(row) for row in rows]
    turns = [turn for row in rows for turn in row.get("conversations") or ()]
    if not turns:
        return [dict(row) for row in rows]
    role, content = _keys_of(turns)
    return [
        {**row, "conversations": [{"role": _role(turn[role]), "content": _text(turn[content])}
                                  for turn in row.get("conversations") or ()]}
        for row in rows
    ]  # fmt: skip


def _keys_of(turns: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    strange: dict[str, str | None] = {}
    known: set[str] = set()
    for turn in turns:
        if len(turn) != 2:
            raise InputError(f"a turn has the keys {', '.join(map(str, turn))}: it must have a role and a content")
        for key, value in turn.items():
            if strange.setdefault(key, None) is None:
                plain = _plain(value)
                if plain in ROLES:
                    known.add(key)
                else:
                    strange[key] = plain
    if len(strange) != 2:
        raise InputError(f"turns have the keys {', '.join(strange)}: all must have the same two")
    roles = [key for key, value in strange.items() if value is None]
    if len(roles) != 1:
        # The key that holds some known role is the role key: name what is wrong in it.
        wrong = next((strange[key] for key in sorted(known) if strange[key] is not None), None)
        what = f"role {wrong[:40]!r} is" if wrong is not None else f"the values of {', '.join(strange)} are"
        raise InputError(f"{what} none of {', '.join(ROLES)}: rename the roles")
    (role,) = roles
    (content,) = strange.keys() - {role}
    return role, content


def _role(value: object) -> str:
    return ROLES[_plain(value)]


def _plain(value: object) -> str:
    return str(value).strip().lower()
