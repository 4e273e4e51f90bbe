"""Every file that a user can hand over, mutated: it is read, or refused in one line; nothing else ever happens.

Each seed makes the same mutations; ``make soak`` runs many more of them. ``corpus`` keeps what once went wrong, and
what ``fuzz.py`` beside this file found to take new paths through the code.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.property.parsers import READERS

from finseek.core.errors import FinseekError

CORPUS = Path(__file__).with_name("corpus")
SPICE = [b"\x00", b"\xff", b"\xef\xbb\xbf", b"nan", b"inf", b"-1", b"1e999", b'"', b",", b"\n", b"\r", b": ", b"&a ",
         b"*a", b"!!python/object:os.system", b"<<", b"[", b"}", b"- ", b"\t", b"2024-02-30", b"<action>", b"</action>",
         b"'", b"=", b"\xe2\x80\xae", b"9" * 30, b"\xed\xa0\x80"]  # fmt: skip


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    for _ in range(rng.integers(1, 5)):
        start, end = sorted(rng.integers(0, len(content) + 1, size=2).tolist())
        end = min(end, start + int(rng.integers(1, 30)))
        piece = content[start:end]
        new = (b"", piece * 3, rng.bytes(len(piece)), SPICE[rng.integers(len(SPICE))], piece.swapcase())
        content = content[:start] + new[rng.integers(len(new))] + content[end:]
    return content


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    """A download that ended early. Damage inside a page is left out: polars itself then ends the process."""
    return content[: rng.integers(0, len(content))]


def read_or_refuse(kind: str, content: bytes, folder: Path) -> bool:
    """Whether the file was accepted; anything but a refusal of one line is an error."""
    name, _, read = READERS[kind]
    (folder / name).write_bytes(content)
    try:
        read(folder / name)
        return True
    except FinseekError as error:
        refused = str(error)
    except Exception as escaped:
        raise AssertionError(f"{kind}: {content!r} ends in {type(escaped).__name__}: {escaped}") from escaped
    assert "\n" not in refused, f"{content!r}: {refused}"
    assert len(refused) < 1000, f"{content!r}: {refused}"
    return False


def judge(kind: str, tries: int, seed: int, folder: Path) -> int:
    """Read mutants; the number that was accepted."""
    content, rng = READERS[kind][1], np.random.default_rng(seed)
    mutants = (cut(content, rng) if "parquet" in kind else mutate(content, rng) for _ in range(tries))
    return sum(read_or_refuse(kind, mutant, folder) for mutant in mutants)


@pytest.mark.parametrize("kind", READERS)
def test_it_is_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    assert read_or_refuse(kind, READERS[kind][1], tmp_path), "the example itself is refused"
    accepted = judge(kind, 300, 0, tmp_path)
    assert accepted < 300 or kind in ("answer", "theses")


def test_the_corpus_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    files = sorted(path for path in CORPUS.rglob("*") if path.is_file())
    assert len(files) > 20
    for path in files:
        read_or_refuse(path.parent.name.replace("_", " "), path.read_bytes(), tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("kind", READERS)
def test_twenty_thousand_of_each(kind: str, tmp_path: Path) -> None:
    for seed in range(1, 21):
        judge(kind, 1000, seed, tmp_path)
