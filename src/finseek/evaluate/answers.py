"""Every answer is kept as it arrives, so that a killed evaluation goes on and a replay asks nobody.

The file holds one JSON line an answer, found again by the hash of the back end's identity and the prompt.
A line that a kill cut short is dropped, and its batch is asked again as a whole: a batch is always the same
rows, so the answers have the same bits whether or not the evaluation was interrupted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from finseek.core.artifacts import sha256_json
from finseek.core.errors import ArtifactError
from finseek.evaluate.backends.base import Answer


class _Line(msgspec.Struct, frozen=True):
    key: str
    answer: Answer


def answer_key(identity: str, prompt: str, draw: int = 0) -> str:
    """Key of an answer: hash of the back end's identity, the prompt, and the number of the draw."""
    return sha256_json([identity, prompt, draw])


class AnswerStore:
    """Answers by key, in memory and, if a path is given, on disk.

    Raises:
        ArtifactError: a line in the middle of the file is not an answer.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._known: dict[str, Answer] = {}
        self._file = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.read_bytes() if path.exists() else b""
        kept = whole.rfind(b"\n") + 1
        decode = msgspec.json.Decoder(_Line).decode
        for number, raw in enumerate(whole[:kept].splitlines(), 1):
            try:
                line = decode(raw)
            except msgspec.DecodeError as error:
                rule = f"{path}:{number} is not an answer ({error}): delete the file to ask anew"
                raise ArtifactError(rule) from None
            self._known.setdefault(line.key, line.answer)
        self._file = path.open("ab")
        self._file.truncate(kept)

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Answer:
        return self._known[key]

    def keep(self, keys: Sequence[str], answers: Sequence[Answer]) -> None:
        """Add the answers of a batch and see them on the disk; of two answers to one key the first stays."""
        for key, answer in zip(keys, answers, strict=True):
            self._known.setdefault(key, answer)
        if self._file:
            encode = msgspec.json.Encoder().encode
            lines = (encode(_Line(key, answer)) + b"\n" for key, answer in zip(keys, answers, strict=True))
            self._file.write(b"".join(lines))
            self._file.flush()
            os.fsync(self._file.fileno())
