"""Splits as files: one Parquet file a split, the certificate, and what was dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from finseek.core.actions import Action
from finseek.core.artifacts import atomic_file, write_json, write_lines
from finseek.core.errors import ArtifactError
from finseek.core.sessions import Sessions
from finseek.theses.options import SplitOptions
from finseek.theses.records import Thesis, iterate_theses
from finseek.theses.split import SPLITS, split_by_time

if TYPE_CHECKING:
    import polars as pl

ROWS = 10_000


class ThesisKey(msgspec.Struct, frozen=True):
    """What a split needs of a thesis, without its texts."""

    uid: str
    ticker: str
    as_of_date: date
    action: Action


@dataclass
class _Writer:
    """Collects the rows of one split in polars' compact form and writes them at once."""

    path: Path
    rows: list[Thesis]
    frames: list[pl.DataFrame]

    def add(self, thesis: Thesis) -> None:
        self.rows.append(thesis)
        if len(self.rows) == ROWS:
            self.flush()

    def flush(self) -> None:
        self.frames.append(frame_of(self.rows))
        self.rows.clear()

    def close(self) -> None:
        import polars as pl

        self.flush()
        with atomic_file(self.path) as partial:
            # Uncompressed: a fifth of the time of lz4, and the texts lie uncompressed in all.jsonl already.
            table = pl.concat(self.frames)
            table.write_parquet(partial, compression="uncompressed", row_group_size=ROWS, statistics=False)
        self.frames.clear()


def write_split(theses: Path, folder: Path, sessions: Sessions | None, options: SplitOptions) -> dict[str, Any]:
    """Split the theses of ``all.jsonl`` into ``train/validation/test.parquet`` and prove it in ``certificate.json``.

    ``dropped.jsonl`` names every thesis that is in no split, with the reason. Texts pass through once; only uid,
    ticker, date and action of all theses are held at a time, unless near-duplicates are looked for.

    Returns:
        the certificate.

    Raises:
        ConfigError, InputError: as :func:`finseek.theses.split.split_by_time`.
        ArtifactError: ``theses`` is missing or holds something else.
    """
    with_texts = options.near_duplicate_threshold is not None
    keys: Iterable[Thesis | ThesisKey] = iterate_theses(theses) if with_texts else _keys(theses)
    split = split_by_time(keys, sessions, options)
    name_of = {key.uid: name for name in SPLITS for key in getattr(split, name)}
    writers = {name: _Writer(folder / f"{name}.parquet", [], []) for name in SPLITS}
    decode = msgspec.json.Decoder(Thesis).decode
    with theses.open("rb") as lines:
        for thesis in map(decode, lines):
            if name := name_of.get(thesis.uid):
                writers[name].add(thesis)
    for writer in writers.values():
        writer.close()
    encode = msgspec.json.Encoder().encode
    dropped = (
        encode({"reason": reason, **{name: getattr(key, name) for name in ThesisKey.__struct_fields__}})
        for reason, lost in split.dropped.items()
        for key in lost
    )
    write_lines(folder / "dropped.jsonl", dropped)
    write_json(folder / "certificate.json", split.certificate)
    return split.certificate


def write_theses_table(path: Path, theses: Iterable[Thesis]) -> None:
    """Write theses as one Parquet file that :func:`iterate_split` reads."""
    writer = _Writer(path, [], [])
    for thesis in theses:
        writer.add(thesis)
    writer.close()


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
        count = table.select(pl.len()).collect().item()
        for offset in range(0, count, ROWS):
            rows = table.slice(offset, ROWS).select(Thesis.__struct_fields__).collect()
            columns = rows.to_dict(as_series=False)
            columns["action"] = [Action(action) for action in columns["action"]]
            decode = msgspec.json.decode
            columns["indicators"] = [{} if text == "{}" else decode(text) for text in columns["indicators"]]
            yield from map(Thesis, *columns.values())
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise ArtifactError(f"{path} is no split of theses ({error}): run the split stage") from error


def load_split(path: Path) -> list[Thesis]:
    """All theses of one split."""
    return list(iterate_split(path))


def _keys(path: Path) -> Iterator[ThesisKey]:
    decode = msgspec.json.Decoder(ThesisKey).decode
    try:
        with path.open("rb") as lines:
            yield from map(decode, lines)
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactError(f"{path} does not hold theses ({error}): run the theses stage") from error
