"""Fuzzing guided by coverage, for as long as you like: ``python -m tests.property.fuzz KIND SECONDS``.

Wants atheris (``pip install atheris``), which the tests do not. What ends in anything but a refusal of
one line stops it and is printed; new paths are kept in ``corpus/KIND``, of which a test reads every file.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["finseek"]):
    from tests.property.parsers import READERS
    from tests.property.test_parsers_fuzz import CORPUS, read_or_refuse


def main(kind: str, seconds: str) -> None:
    """Fuzz one kind of file."""
    corpus = CORPUS / kind.replace(" ", "_")
    corpus.mkdir(parents=True, exist_ok=True)
    seed = Path(tempfile.mkdtemp())
    (seed / "example").write_bytes(READERS[kind][1])
    folder = Path(tempfile.mkdtemp())
    flags = [f"-max_total_time={seconds}", "-max_len=4000", "-timeout=10", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *flags, str(corpus), str(seed)], lambda data: read_or_refuse(kind, data, folder))
    atheris.Fuzz()


main(*sys.argv[1:])
