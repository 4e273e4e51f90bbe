"""Theses of a source: a stream of theses and rejects, a pair of lists, or the files of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from finseek.core.actions import ACTIONS
from finseek.core.artifacts import atomic_file, write_json
from finseek.core.errors import InputError
from finseek.core.progress import Progress, silent
from finseek.theses.clean import Cleaner, Raw
from finseek.theses.options import ThesesOptions
from finseek.theses.records import Reject, Thesis, iterate_theses
from finseek.theses.refuse import Refused
from finseek.theses.rows import csv_theses, jsonl_theses, parquet_theses
from finseek.theses.salvage import salvaged_theses
from finseek.theses.sources import Document, documents
from finseek.theses.xml import xml_theses

Reader = Callable[[bytes, str, ThesesOptions], Iterator[Raw]]

BUFFER = 1 << 20
READERS: dict[str, Reader] = {
    "xml": xml_theses,
    "jsonl": jsonl_theses,
    "csv": csv_theses,
    "parquet": parquet_theses,
}


def read_theses(
    source: Path | str, options: ThesesOptions | None = None, progress: Progress = silent
) -> tuple[list[Thesis], list[Reject]]:
    """Read every thesis of a folder, file or archive.

    Returns:
        the theses in the order of the source, and everything that was refused, with its reason.

    Raises:
        InputError: the source does not exist or is an empty folder.
    """
    cleaner = Cleaner(options or ThesesOptions())
    records = list(_stream(Path(source), cleaner, progress))
    if cleaner.conflicting:
        records = list(cleaner.settle(records))
    theses = [record for record in records if isinstance(record, Thesis)]
    rejects = [record for record in records if isinstance(record, Reject)]
    return theses, rejects


def parse_theses(
    source: Path, folder: Path, options: ThesesOptions | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Write ``all.jsonl``, ``rejects.jsonl`` and ``summary.json`` into a folder, as :func:`write_theses` does."""
    options = options or ThesesOptions()
    summary = write_theses(source, folder / "all.jsonl", folder / "rejects.jsonl", options, progress)
    write_json(folder / "summary.json", summary)
    return summary


def write_theses(
    source: Path, kept: Path, rejects: Path, options: ThesesOptions, progress: Progress = silent
) -> dict[str, Any]:
    """Write theses and rejects as JSON lines; memory does not grow with the texts.

    Returns:
        the summary: found = kept + rejected, and the counts by reason, action and ticker.

    Raises:
        InputError: the source does not exist, is an empty folder, or holds not one thesis that could be kept; then
            the rejects are written all the same, for they say why.
    """
    cleaner = Cleaner(options)
    with atomic_file(rejects) as rejects_partial, suppress(_NothingKept):
        with atomic_file(kept) as kept_partial:
            records = _stream(source, cleaner, progress)
            tally = _write(records, kept_partial, rejects_partial, options.teacher_cutoff)
            if cleaner.conflicting:
                tally = _settle(cleaner, kept_partial, rejects_partial, options.teacher_cutoff)
            if not tally.kept:
                raise _NothingKept
    if not tally.kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in tally.rejected.most_common(4))
        raise InputError(
            f"theses.source {source} holds no thesis that can be kept (rejected: {reasons}): {rejects} names each one"
        )
    return _summary(tally, options)


class _NothingKept(Exception):
    """There is no file of theses to leave behind."""


def _stream(source: Path, cleaner: Cleaner, progress: Progress) -> Iterator[Thesis | Reject]:
    for done, document in enumerate(documents(source, cleaner.options), 1):
        yield from records_of(document, cleaner)
        progress("theses", done, None, "files")


def records_of(document: Document, cleaner: Cleaner) -> Iterator[Thesis | Reject]:
    """The theses and rejects of one file, in its order; what conflicts is settled by the caller."""
    clean = cleaner.clean
    for raw in _raws(document, cleaner.options):
        yield raw if isinstance(raw, Reject) else clean(raw)


def _raws(document: Document, options: ThesesOptions) -> Iterator[Raw | Reject]:
    """The raw records of a file; one that is refused as a whole is one reject."""
    try:
        if document.problem is not None:
            raise document.problem
        yield from READERS[document.kind](document.content, document.name, options)
    except Refused as refused:
        if options.salvage and document.kind == "xml" and refused.reason == "malformed_xml":
            try:
                yield from salvaged_theses(document.content, document.name, options)
                return
            except Refused as hopeless:
                refused = hopeless
        head = document.content[: options.max_raw_chars].decode("utf-8", "backslashreplace")
        missing = len(document.content) - options.max_raw_chars
        raw = f"{head}… ({missing} more bytes)" if missing > 0 else head
        yield Reject(refused.reason, refused.detail, document.name, -1, refused.line, raw)


@dataclass(slots=True)
class _Tally:
    """What the summary counts."""

    kept: int = 0
    salvaged: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    tickers: Counter[str] = field(default_factory=Counter)
    dates: set[date] = field(default_factory=set)
    before_cutoff: int = 0


def _write(records: Iterable[Thesis | Reject], kept: Path, rejects: Path, cutoff: date | None) -> _Tally:
    encode = msgspec.json.Encoder().encode
    tally = _Tally()
    with kept.open("wb", BUFFER) as kept_lines, rejects.open("wb") as reject_lines:
        for record in records:
            if isinstance(record, Thesis):
                kept_lines.write(encode(record) + b"\n")
                tally.kept += 1
                tally.salvaged += record.salvaged
                tally.actions[record.action] += 1
                tally.tickers[record.ticker] += 1
                tally.dates.add(record.as_of_date)
                tally.before_cutoff += cutoff is not None and record.as_of_date <= cutoff
            else:
                reject_lines.write(encode(record) + b"\n")
                tally.rejected[record.reason] += 1
    return tally


def _settle(cleaner: Cleaner, kept: Path, rejects: Path, cutoff: date | None) -> _Tally:
    """Write both files again without what turned out to conflict; rare, so a second pass and no index."""
    old_kept, old_rejects = (path.with_name(path.name + ".first") for path in (kept, rejects))
    kept.replace(old_kept)
    rejects.replace(old_rejects)
    try:
        with old_rejects.open("rb") as lines:
            refused = map(msgspec.json.Decoder(Reject).decode, lines)
            records: Iterable[Thesis | Reject] = chain(iterate_theses(old_kept), refused)
            return _write(cleaner.settle(records), kept, rejects, cutoff)
    finally:
        old_kept.unlink(missing_ok=True)
        old_rejects.unlink(missing_ok=True)


def _summary(tally: _Tally, options: ThesesOptions) -> dict[str, Any]:
    rejected = sum(tally.rejected.values())
    return {
        "found": tally.kept + rejected,
        "kept": tally.kept,
        "rejected": rejected,
        "rejected_by_reason": dict(sorted(tally.rejected.items())),
        "salvaged": tally.salvaged,
        "actions": {action.value: tally.actions[action] for action in ACTIONS},
        "tickers": dict(sorted(tally.tickers.items())),
        "sessions": len(tally.dates),
        "first_as_of_date": min(tally.dates).isoformat(),
        "last_as_of_date": max(tally.dates).isoformat(),
        "teacher_cutoff": options.teacher_cutoff.isoformat() if options.teacher_cutoff else None,
        "as_of_teacher_cutoff_or_before": tally.before_cutoff if options.teacher_cutoff else None,
    }
