"""The record of a thesis, the record of what was refused, and their JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from finseek.core.actions import Action
from finseek.core.records import iterate_records


class Thesis(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One dated opinion; (ticker, as_of_date) is unique in a corpus.

    Attributes:
        uid: first 16 hex digits of the SHA-256 of ``ticker|as_of_date``.
        ticker: upper case.
        as_of_date: the session after whose close the thesis was known.
        reasoning: why, without outer white space.
        support: the evidence, without outer white space.
        action: the opinion.
        indicators: every further child or attribute, by name.
        instruction: of custom sources only; used verbatim in the prompt.
        input: of custom sources only; used verbatim in the prompt.
        output: of custom sources only; used verbatim as the answer.
        source_file: the file below the source, members of archives after a ``!``.
        index: place in that file, from 0.
        salvaged: the file around it was broken, this thesis was whole; written only where true.
    """

    uid: str
    ticker: str
    as_of_date: date
    reasoning: str
    support: str
    action: Action
    indicators: dict[str, str]
    instruction: str | None
    input: str | None
    output: str | None
    source_file: str
    index: int
    salvaged: bool = False


class Reject(msgspec.Struct, frozen=True):
    """Something that came in and did not become a thesis, and why.

    Attributes:
        reason: the code that the summary counts by.
        detail: one line for a human, with the value.
        source_file: as in :class:`Thesis`.
        index: place in the file, from 0; -1 where the whole file was refused.
        line: line in the file, from 1, where it is known.
        raw: the fields as they were found, or the beginning of the raw text.
    """

    reason: str
    detail: str
    source_file: str
    index: int
    line: int | None
    raw: dict[str, Any] | str


def thesis_uid(ticker: str, as_of_date: date) -> str:
    """First 16 hex digits of the SHA-256 of ``ticker|as_of_date``."""
    return sha256(f"{ticker}|{as_of_date.isoformat()}".encode()).hexdigest()[:16]


def iterate_theses(path: Path) -> Iterator[Thesis]:
    """Read theses one by one from JSON lines that finseek wrote.

    Raises:
        ArtifactError: the file is missing or a line is no thesis.
    """
    return iterate_records(path, Thesis, "theses")


def load_theses(path: Path) -> list[Thesis]:
    """Read all theses of a JSON-lines file that finseek wrote."""
    return list(iterate_theses(path))
