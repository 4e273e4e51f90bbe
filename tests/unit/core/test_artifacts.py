from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from finseek.core import artifacts
from finseek.core.errors import InputError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file.txt"
    artifacts.write_text(path, "old")

    def fail() -> None:
        with artifacts.atomic_file(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("one", "two"):
        with artifacts.atomic_folder(path) as partial:
            (partial / content).write_text(content)
    assert [p.name for p in path.iterdir()] == ["two"]
    with pytest.raises(RuntimeError), artifacts.atomic_folder(path):
        raise RuntimeError
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "two"]


def test_left_overs_of_a_killed_process_go_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".x.json.123.partial").write_text("half")
    (tmp_path / ".folder.7.partial").mkdir()
    (tmp_path / ".env").write_text("A=1")
    artifacts.remove_partials(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".env"]


def test_hashes_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    assert artifacts.write_lines(path, [b"a", b"b"]) == 2
    assert artifacts.sha256_file(path) == hashlib.sha256(b"a\nb\n").hexdigest()
    assert artifacts.sha256_json({"b": 1, "a": [1.5]}) == hashlib.sha256(b'{"a":[1.5],"b":1}').hexdigest()


def test_absence_is_null_never_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    artifacts.refuse_foreign(folder, r"\w+\.jsonl")
    folder.mkdir()
    (folder / "train.jsonl").write_text("")
    artifacts.refuse_foreign(folder, r"\w+\.jsonl")
    (folder / "thesis.docx").write_text("years of work")
    with pytest.raises(InputError, match=r"out holds thesis\.docx, which would be lost"):
        artifacts.refuse_foreign(folder, r"\w+\.jsonl")
    for path in (folder / "thesis.docx", Path()):
        with pytest.raises(InputError, match="name a new one"):
            artifacts.refuse_foreign(path, ".*")


def test_large_files_are_told_apart_by_their_blocks(tmp_path: Path) -> None:
    size = artifacts.BLOCKS * artifacts.BLOCK * 3
    file = tmp_path / "weights"
    file.write_bytes(bytes(size))
    first = artifacts.probe_file(file)
    for place in (0, size - 1, size // 2 // artifacts.BLOCK * artifacts.BLOCK):
        with file.open("r+b") as content:
            content.seek(place)
            content.write(b"\1" * min(4 * artifacts.BLOCK, size - place))
        assert artifacts.probe_file(file) != first
        first = artifacts.probe_file(file)
