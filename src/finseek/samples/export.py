"""Samples in the formats of other trainers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from finseek.core.artifacts import atomic_folder, refuse_foreign, write_lines
from finseek.core.errors import InputError, MissingPart
from finseek.samples.files import FILES
from finseek.samples.records import Sample, iterate_samples

Line = Callable[[Sample], dict[str, Any]]


def nemo_line(sample: Sample) -> dict[str, Any]:
    """``input`` and ``output``, as NeMo's fine-tuning data modules read them."""
    return {"input": sample.input, "output": sample.output}


def chat_line(sample: Sample) -> dict[str, Any]:
    """``messages`` with roles, as OpenAI, TRL and Megatron-Bridge read them."""
    return {"messages": [{"role": "user", "content": sample.input}, {"role": "assistant", "content": sample.output}]}


def sharegpt_line(sample: Sample) -> dict[str, Any]:
    """``conversations`` of human and gpt."""
    return {"conversations": [{"from": "human", "value": sample.input}, {"from": "gpt", "value": sample.output}]}


LINES: dict[str, Line] = {"nemo": nemo_line, "chat": chat_line, "sharegpt": sharegpt_line}
FORMATS = (*LINES, "parquet", "huggingface")
EXPORTED = r"(train|training|validation|test)(\.jsonl|\.parquet)?|dataset_dict\.json"


def export_samples(samples: Path, folder: Path, format: str, *, metadata: bool = True) -> dict[str, int]:
    """Write the samples of a run in another format.

    ``nemo``, ``chat`` and ``sharegpt`` are JSON lines under the names ``training``, ``validation`` and ``test``;
    ``parquet`` has the columns input, output and those of the metadata; ``huggingface`` is a ``DatasetDict`` on disk
    with the splits train, validation and test.

    Args:
        samples: folder with the files of the samples stage; an empty split is left out of no format.
        folder: appears whole or not at all.
        format: one of ``FORMATS``.
        metadata: keep uid, ticker, as-of date, action and split beside each sample.

    Returns:
        the number of samples by split.

    Raises:
        InputError: an unknown format, or a folder that holds something else.
        MissingPart: ``huggingface`` without the datasets library.
    """
    if format not in FORMATS:
        raise InputError(f"format {format!r} is none of {', '.join(FORMATS)}: choose one")
    refuse_foreign(folder, EXPORTED)
    with atomic_folder(folder) as partial:
        if format in LINES:
            return {
                name: write_lines(partial / file, _lines(samples / file, LINES[format], metadata))
                for name, file in FILES.items()
            }
        tables = {name: _columns(samples / file, metadata) for name, file in FILES.items()}
        (_write_parquet if format == "parquet" else _write_huggingface)(partial, tables)
        return {name: len(columns["input"]) for name, columns in tables.items()}


def _lines(path: Path, line: Line, metadata: bool) -> Iterator[bytes]:
    for sample in iterate_samples(path):
        yield orjson.dumps(line(sample) | ({"metadata": sample.metadata} if metadata else {}))


def _columns(path: Path, metadata: bool) -> dict[str, list[Any]]:
    """Input, output and, if wanted, one column a key of the metadata, in the order of their first appearance."""
    samples = list(iterate_samples(path))
    columns = {"input": [sample.input for sample in samples], "output": [sample.output for sample in samples]}
    keys = dict.fromkeys(key for sample in samples for key in sample.metadata) if metadata else {}
    return columns | {key: [sample.metadata.get(key) for sample in samples] for key in keys}


def _write_parquet(folder: Path, tables: dict[str, dict[str, list[Any]]]) -> None:
    import polars as pl

    for name, columns in tables.items():
        text = {"input": pl.String, "output": pl.String}
        pl.DataFrame(columns, schema_overrides=text).write_parquet(folder / FILES[name].replace(".jsonl", ".parquet"))


def _write_huggingface(folder: Path, tables: dict[str, dict[str, list[Any]]]) -> None:
    try:
        from datasets import Dataset, DatasetDict  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise MissingPart("datasets", "trl", "export to a Hugging Face dataset") from None
    made = DatasetDict({name: Dataset.from_dict(columns) for name, columns in tables.items()})
    made.save_to_disk(str(folder))
