"""Splits and folds as files: one Parquet file a part, the certificate, and what was dropped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import date
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from finseek.core.actions import Action
from finseek.core.artifacts import atomic_file, atomic_folder, refuse_foreign, write_json, write_lines
from finseek.core.errors import ArtifactError
from finseek.core.sessions import Sessions
from finseek.theses.folds import make_folds
from finseek.theses.options import FoldOptions, SplitOptions
from finseek.theses.records import Thesis, load_theses
from finseek.theses.split import SPLITS, split_by_time

if TYPE_CHECKING:
    import polars as pl

ROWS = 10_000
IN_MEMORY = 64 * 1024 * 1024


class ThesisKey(msgspec.Struct, frozen=True, gc=False):
    """What a split needs of a thesis, without its texts."""

    uid: str
    ticker: str
    as_of_date: date
    action: Action


def write_split(theses: Path, folder: Path, sessions: Sessions | None, options: SplitOptions) -> dict[str, Any]:
    """Split the theses of ``all.jsonl`` into ``train/validation/test.parquet`` and prove it in ``certificate.json``.

    ``dropped.jsonl`` names every thesis that is in no split, with the reason. Of a file above 64 MiB only uid, ticker,
    date and action of all theses are held at a time, unless near-duplicates are looked for.

    Returns:
        the certificate.

    Raises:
        ConfigError, InputError: as :func:`finseek.theses.split.split_by_time`.
        ArtifactError: ``theses`` is missing or holds something else.
    """
    whole = options.near_duplicate_threshold is not None or (theses.is_file() and theses.stat().st_size <= IN_MEMORY)
    ends: list[int] = []
    keys: list[Thesis] | list[ThesisKey] = load_theses(theses) if whole else list(_keys(theses, ends))
    split = split_by_time(keys, sessions, options)
    if whole:
        for name in SPLITS:
            write_theses_table(folder / f"{name}.parquet", getattr(split, name))
    else:
        name_of = {key.uid: name for name in SPLITS for key in getattr(split, name)}
        names = [name_of.get(key.uid) for key in keys]
        for name in SPLITS:
            write_theses_table(folder / f"{name}.parquet", _lines_of(name, names, theses, ends))
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


def write_theses_table(path: Path, theses: Iterable[Any]) -> None:
    """Write theses as one Parquet file that :func:`iterate_split` reads; memory holds one row group."""
    from polars.io.plugins import register_io_source

    # Uncompressed: a fifth of the time of lz4, and the texts lie uncompressed in all.jsonl already.
    layout: dict[str, Any] = {"compression": "uncompressed", "row_group_size": ROWS, "statistics": False}
    rest = iter(theses)
    first = frame_of(list(islice(rest, ROWS)))

    def frames(*_: object) -> Iterator[pl.DataFrame]:
        yield first
        while rows := list(islice(rest, ROWS)):
            yield frame_of(rows)

    with atomic_file(path) as partial:
        if len(first) < ROWS:
            first.write_parquet(partial, **layout)
        else:
            register_io_source(frames, schema=first.schema).sink_parquet(partial, **layout)


def frame_of(theses: list[Thesis]) -> pl.DataFrame:
    """Theses as a polars frame, a column a field; indicators as JSON text."""
    import polars as pl

    columns: dict[str, Any] = {name: [getattr(thesis, name) for thesis in theses] for name in Thesis.__struct_fields__}
    encode = msgspec.json.encode
    columns["indicators"] = [encode(value).decode() if value else "{}" for value in columns["indicators"]]
    columns["action"] = [action.value for action in columns["action"]]
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

    try:
        table = pl.scan_parquet(path)
        for offset in count(step=ROWS):
            rows = table.slice(offset, ROWS).select(Thesis.__struct_fields__).collect()
            columns = rows.to_dict(as_series=False)
            columns["action"] = [Action(action) for action in columns["action"]]
            decode = msgspec.json.decode
            columns["indicators"] = [{} if text == "{}" else decode(text) for text in columns["indicators"]]
            yield from map(Thesis, *columns.values())
            if len(rows) < ROWS:
                return
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise ArtifactError(f"{path} is no split of theses ({error}): run the split stage") from error


def load_split(path: Path) -> list[Thesis]:
    """All theses of one split."""
    return list(iterate_split(path))


def _lines_of(split: str, names: list[str | None], path: Path, ends: list[int]) -> Iterator[Thesis]:
    """The theses of one split, by the name that each line of ``all.jsonl`` was given and the byte where it ends."""
    decode = msgspec.json.Decoder(Thesis).decode
    start = 0
    with path.open("rb", buffering=0) as lines:
        for name, end in zip(names, ends, strict=True):
            if name == split:
                yield decode(os.pread(lines.fileno(), end - start, start))
            start = end


def _keys(path: Path, ends: list[int]) -> Iterator[ThesisKey]:
    """The key of each line; where it ends, in bytes, is added to ``ends``."""
    decode = msgspec.json.Decoder(ThesisKey).decode
    end = 0
    try:
        with path.open("rb") as lines:
            for line in lines:
                yield decode(line)
                end += len(line)
                ends.append(end)
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactError(f"{path} does not hold theses ({error}): run the theses stage") from error
