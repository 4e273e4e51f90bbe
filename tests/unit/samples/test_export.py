from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from finseek.core.errors import InputError
from finseek.samples import Sample, load_samples, write_samples
from finseek.samples.export import FORMATS, export_samples

COUNTS = {"train": 3, "validation": 2, "test": 1}
FILES = {"train": "training", "validation": "validation", "test": "test"}


@pytest.fixture
def folder(samples: list[Sample], tmp_path: Path) -> Path:
    start = 0
    for name, count in COUNTS.items():
        write_samples(tmp_path / "samples" / f"{FILES[name]}.jsonl", samples[start : start + count])
        start += count
    return tmp_path / "samples"


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("metadata", [True, False])
def test_line_formats(folder: Path, tmp_path: Path, metadata: bool) -> None:
    expected = {
        "nemo": lambda s: {"input": s.input, "output": s.output},
        "chat": lambda s: {"messages": [{"role": "user", "content": s.input},
                                        {"role": "assistant", "content": s.output}]},
        "sharegpt": lambda s: {"conversations": [{"from": "human", "value": s.input},
                                                 {"from": "gpt", "value": s.output}]},
    }  # fmt: skip
    for name, line in expected.items():
        assert export_samples(folder, tmp_path / name, name, metadata=metadata) == COUNTS
        for split in COUNTS:
            source = load_samples(folder / f"{FILES[split]}.jsonl")
            wanted = [line(s) | ({"metadata": s.metadata} if metadata else {}) for s in source]
            assert lines(tmp_path / name / f"{FILES[split]}.jsonl") == wanted


def test_parquet(folder: Path, tmp_path: Path) -> None:
    assert export_samples(folder, tmp_path / "p", "parquet") == COUNTS
    table = pl.read_parquet(tmp_path / "p" / "training.parquet")
    source = load_samples(folder / "training.jsonl")
    assert table["input"].to_list() == [s.input for s in source]
    assert table["ticker"].to_list() == [s.metadata["ticker"] for s in source]
    assert table["action_span"].to_list() == [s.metadata["action_span"] for s in source]
    export_samples(folder, tmp_path / "q", "parquet", metadata=False)
    assert pl.read_parquet(tmp_path / "q" / "test.parquet").columns == ["input", "output"]


def test_hugging_face_dataset(folder: Path, tmp_path: Path) -> None:
    from datasets import load_from_disk

    assert export_samples(folder, tmp_path / "hf", "huggingface") == COUNTS
    loaded = load_from_disk(str(tmp_path / "hf"))
    assert {name: len(part) for name, part in loaded.items()} == COUNTS
    source = load_samples(folder / "validation.jsonl")
    assert loaded["validation"]["output"][:] == [s.output for s in source]
    assert loaded["validation"]["uid"][:] == [s.metadata["uid"] for s in source]


def test_an_empty_split_and_an_unknown_format(folder: Path, tmp_path: Path) -> None:
    write_samples(folder / "validation.jsonl", [])
    for name in ("nemo", "parquet", "huggingface"):
        assert export_samples(folder, tmp_path / name, name) == COUNTS | {"validation": 0}
    with pytest.raises(InputError, match="'excel' is none of nemo, chat, sharegpt, parquet, huggingface"):
        export_samples(folder, tmp_path / "x", "excel")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_only_an_export_is_replaced(folder: Path, tmp_path: Path, name: str) -> None:
    for _ in range(2):
        export_samples(folder, tmp_path / "out", name)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.txt, which would be lost"):
        export_samples(folder, tmp_path / "out", name)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
