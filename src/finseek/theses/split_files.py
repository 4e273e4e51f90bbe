"""Splits and folds as files: one Parquet file a part, the certificate, and what was dropped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from itertools import count
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from finseek.core.actions import Action
from finseek.core.artifacts import atomic_file, atomic_folder, refuse_foreign, write_json, write_lines
from finseek.core.errors import ArtifactError, InputError
from finseek.core.sessions import Sessions
from finseek.theses.folds import make_folds
from finseek.theses.options import FoldOptions, SplitOptions
from finseek.theses.records import Thesis, load_theses
from finseek.theses.split import SPLITS, split_by_time

if TYPE_CHECKING:
    import polars as pl

ROWS = 2_000  # of a row group, about 5 MB
BATCH = 500  # theses in memory at a time
BUFFER = 1 << 20


Label = Callable[[str, date], Action | None]


class ThesisKey(msgspec.Struct, frozen=True, gc=False):
    """What a split needs of a thesis, without its texts."""

    uid: str
    ticker: str
    as_of_date: date
    action: Action | None


K = TypeVar("K", bound=ThesisKey | Thesis)


def write_split(
    theses: Path, folder: Path, sessions: Sessions | None, options: SplitOptions, label: Label | None = None
) -> dict[str, Any]:
    """Split the theses of ``all.jsonl`` into ``train/validation/test.parquet`` and prove it in ``certificate.json``.

    ``dropped.jsonl`` names every thesis that is in no split, with the reason. Only uid, ticker, date and action of all
    theses are held at a time, and the texts where near-duplicates are looked for.

    Args:
        theses: the file.
        folder: where the splits go.
        sessions: the trading days.
        options: the cuts.
        label: action of a ticker as of a session, to be learned instead of the thesis's own; None where there is none.

    Returns:
        the certificate.

    Raises:
        ConfigError, InputError: as :func:`finseek.theses.split.split_by_time`; also for a thesis whose source gives
            the answer itself, beside ``label``.
        ArtifactError: ``theses`` is missing or holds something else.
    """
    record: type[ThesisKey | Thesis] = ThesisKey if options.near_duplicate_threshold is None else Thesis
    keys, ends = _keys(theses, record)
    if label is not None:
        keys = [replace(key, action=label(key.ticker, key.as_of_date)) for key in keys]
    split = split_by_time(keys, sessions, options)
    name_of = {key.uid: name for name in SPLITS for key in getattr(split, name)}
    names = np.array([name_of.get(key.uid, "") for key in keys])
    for name in SPLITS:
        _write_table(folder / f"{name}.parquet", _batches(theses, ends, np.flatnonzero(names == name), label))
    encode = msgspec.json.Encoder().encode
    dropped = (
        encode({"reason": reason, **{name: getattr(key, name) for name in ThesisKey.__struct_fields__}})
        for reason, lost in split.dropped.items()
        for key in lost
    )
    write_lines(folder / "dropped.jsonl", dropped)
    write_json(folder / "certificate.json", split.certificate)
    return split.certificate


def write_folds(theses: Path, folder: Path, sessions: Sessions, options: FoldOptions) -> list[dict[str, Any]]:
    """Write ``fold-01/train.parquet``, ``test.parquet``, ``certificate.json`` and so on into a new folder.

    Returns:
        the certificates.

    Raises:
        InputError: as :func:`finseek.theses.folds.make_folds`.
        ArtifactError: ``theses`` is missing or holds something else.
    """
    refuse_foreign(folder, r"fold-\d+")
    folds = make_folds(load_theses(theses), sessions, options)
    with atomic_folder(folder) as partial:
        for number, fold in enumerate(folds, 1):
            place = partial / f"fold-{number:02d}"
            write_theses_table(place / "train.parquet", fold.train)
            write_theses_table(place / "test.parquet", fold.test)
            write_json(place / "certificate.json", {"options": options.model_dump(mode="json"), **fold.certificate})
    return [fold.certificate for fold in folds]


def write_theses_table(path: Path, theses: Sequence[Thesis]) -> None:
    """Write theses as one Parquet file that :func:`iterate_split` reads."""
    _write_table(path, (theses[start : start + BATCH] for start in range(0, len(theses), BATCH)))


def _write_table(path: Path, batches: Iterator[Sequence[Thesis]]) -> None:
    """Write batches of theses as one Parquet file; memory holds a few of them and a row group."""
    from polars.io.plugins import register_io_source

    # Uncompressed: a fifth of the time of lz4, and the texts lie uncompressed in all.jsonl already.
    layout: dict[str, Any] = {"compression": "uncompressed", "row_group_size": ROWS, "statistics": False}
    first = frame_of(next(batches, ()))

    def frames(*_: object) -> Iterator[pl.DataFrame]:
        yield first
        yield from map(frame_of, batches)

    with atomic_file(path) as partial:
        if len(first) < BATCH:
            first.write_parquet(partial, **layout)
        else:
            register_io_source(frames, schema=first.schema).sink_parquet(partial, **layout)


def frame_of(theses: Sequence[Thesis]) -> pl.DataFrame:
    """Theses as a polars frame, a column a field; indicators as JSON text."""
    import polars as pl

    columns: dict[str, Any] = {name: list(map(attrgetter(name), theses)) for name in Thesis.__struct_fields__}
    encode = msgspec.json.encode
    columns["indicators"] = [encode(value).decode() if value else "{}" for value in columns["indicators"]]
    columns["action"] = list(map(str, columns["action"]))
    schema = {name: pl.String for name in columns} | {
        "as_of_date": pl.Date, "index": pl.Int64, "salvaged": pl.Boolean,
    }  # fmt: skip
    return pl.DataFrame(columns, schema=schema)


def iterate_split(path: Path) -> Iterator[Thesis]:
    """Read the theses of one split, a row group at a time.

    Raises:
        ArtifactError: the file is missing or no split.
    """
    import polars as pl

    decode = msgspec.json.decode
    actions = {action.value: action for action in Action}
    try:
        table = pl.scan_parquet(path)
        for offset in count(step=ROWS):
            rows = table.slice(offset, ROWS).select(Thesis.__struct_fields__).collect()
            columns = rows.to_dict(as_series=False)
            columns["action"] = list(map(actions.__getitem__, columns["action"]))
            columns["indicators"] = [{} if text == "{}" else decode(text) for text in columns["indicators"]]
            yield from map(Thesis, *columns.values())
            if len(rows) < ROWS:
                return
    except (pl.exceptions.PolarsError, OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path} is no split of theses ({error}): run the split stage") from error


def load_split(path: Path) -> list[Thesis]:
    """All theses of one split."""
    return list(iterate_split(path))


def _keys(path: Path, record: type[K]) -> tuple[list[K], NDArray[np.int64]]:
    """The record of each line, and the byte where each line begins, with the end of the file as the last."""
    keys: list[K] = []
    lengths = [0]
    try:
        decode = msgspec.json.Decoder(record).decode
        with path.open("rb", BUFFER) as lines:
            while block := lines.readlines(BUFFER):
                keys += map(decode, block)
                lengths += map(len, block)
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactError(f"{path} does not hold theses ({error}): run the theses stage") from error
    return keys, np.cumsum(lengths)


def _batches(
    path: Path, starts: NDArray[np.int64], places: NDArray[np.int64], label: Label | None
) -> Iterator[list[Thesis]]:
    """The theses at the given lines, ``BATCH`` at a time; lines that follow each other are read in one go."""
    decode = msgspec.json.Decoder(Thesis).decode_lines
    with path.open("rb", buffering=0) as lines:
        for start in range(0, len(places), BATCH):
            batch = places[start : start + BATCH]
            first = np.r_[True, np.diff(batch) != 1]
            begins, ends = starts[batch[first]].tolist(), starts[batch[np.r_[first[1:], True]] + 1].tolist()
            runs = (os.pread(lines.fileno(), end - begin, begin) for begin, end in zip(begins, ends, strict=True))
            theses = decode(b"".join(runs))
            yield theses if label is None else [_relabelled(thesis, label) for thesis in theses]


def _relabelled(thesis: Thesis, label: Label) -> Thesis:
    action = label(thesis.ticker, thesis.as_of_date)
    assert action is not None  # those without one are in no split
    if thesis.output is not None:
        raise InputError(
            f"the source gives the answer of {thesis.ticker} {thesis.as_of_date} itself (output), which its realised"
            " label would contradict: set split.realised to null, or leave output out"
        )
    return replace(thesis, action=action)
