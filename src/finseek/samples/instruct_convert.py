"""Instruction data from files to training files: merged, split, extended, and nothing lost in between.

The split comes before the extension, and rows with the same prompt share a split: otherwise training would hold
what validation asks for.
"""

from __future__ import annotations

import csv
import mmap
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, Self

import orjson
from pydantic import Field, model_validator

from finseek.core.artifacts import atomic_folder, refuse_foreign, write_json
from finseek.core.errors import InputError, MissingPart
from finseek.core.options import Options
from finseek.core.progress import Progress, silent
from finseek.samples.instruct import RANDOM_STATE, Renderer, columns_of, permutations, prompt_renderer

Row = dict[str, Any]
FILES = {"train": "training.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}
HUB = "hub:"
BOM = b"\xef\xbb\xbf"
BATCH = 20_000
PROGRESS_EVERY = 50_000
COLUMNS_WITHIN = 1000

# How one turn and one line look: before the prompt, before the answer, after it; before the turns, after them.
LAYOUTS = {
    "sharegpt": (
        b'{"from":"human","value":', b'},{"from":"gpt","value":', b"}", b'{"conversations":[', b"]}",
    ),
    "messages": (
        b'{"role":"user","content":', b'},{"role":"assistant","content":', b"}", b'{"messages":[', b"]}",
    ),
    "samples": (b'{"input":', b',"output":', b',"metadata":{}}', b"", b""),
}  # fmt: skip


class Stranger(str):
    """What stands for a whole file that is not read."""


class InstructOptions(Options):
    """How instruction data is read, merged, split and extended."""

    merged_prompt: str = Field(
        default="[[{system}\n]]{user}", description="template of the prompt; empty takes prompt_column as it is"
    )
    prompt_column: str = Field(default="user", description="column of the prompt where merged_prompt is empty")
    output_column: str = Field(default="assistant", description="column of the answer")
    blank_is_empty: bool = Field(
        default=True, description="a [[ ]] block whose first column is only white space is left out"
    )
    conversation_extension: int = Field(default=1, ge=1, le=64, description="rows that are joined to a conversation")
    random_state: int = Field(default=RANDOM_STATE, ge=0, description="seed of the joins")
    validation_fraction: float = Field(default=0.05, ge=0, lt=1, description="share of the prompts in validation")
    test_fraction: float = Field(default=0.0, ge=0, lt=1, description="share of the prompts in test")
    format: Literal["messages", "sharegpt", "samples"] = Field(
        default="messages", description="messages (role, content), sharegpt (from, value) or samples (input, output)"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction leave no training: their sum must be below 1")
        if self.format == "samples" and self.conversation_extension > 1:
            raise ValueError("format samples holds one turn: set conversation_extension to 1 or format to messages")
        return self


def convert_instructions(
    source: str | Path, folder: Path, options: InstructOptions | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """Write ``training.jsonl``, ``validation.jsonl``, ``test.jsonl``, ``rejects.jsonl`` and ``summary.json``.

    Turns go through a file, so memory holds a few numbers a row and no texts.

    Args:
        source: a Parquet, JSON-lines or CSV file, a folder of them, or ``hub:owner/name``.
        folder: appears whole or not at all.
        options: how.
        progress: told now and then.

    Returns:
        the summary: found = kept + rejected, by reason, and the conversations of each split.

    Raises:
        InputError: the source is missing or unreadable, a column is missing, or nothing is left.
    """
    options = options or InstructOptions()
    before, between, after, _, _ = LAYOUTS[options.format]
    places = {name: array("Q") for name in FILES}
    rejected: Counter[str] = Counter()
    found = 0
    named = columns_of(options.merged_prompt) if options.merged_prompt else [options.prompt_column]
    needed = dict.fromkeys([*named, options.output_column])
    render = prompt_renderer(list(needed), options.merged_prompt, options.prompt_column, options.output_column,
                             options.blank_is_empty)  # fmt: skip
    if Path(source).resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{source} lies inside {folder}, which the result would replace: name another folder")
    refuse_foreign(folder, r"(training|validation|test|rejects)\.jsonl|summary\.json")
    with atomic_folder(folder) as partial:
        turns_file = partial / "turns"
        with turns_file.open("wb", 1 << 20) as turns, (partial / "rejects.jsonl").open("wb") as rejects:
            end = 0
            for name, line, row in _completed(_rows(source), needed):
                found += 1
                if found % PROGRESS_EVERY == 0:
                    progress("instruct", found, None, "rows")
                problem, prompt, answer = _judge(row, render, options)
                if problem:
                    rejected[problem] += 1
                    rejects.write(_reject(problem, name, line, row) + b"\n")
                    continue
                turn = b"".join((before, orjson.dumps(prompt), between, orjson.dumps(answer), after))
                turns.write(turn)
                places[_split_of(prompt, options)].extend((end, end + len(turn)))
                end += len(turn)
        if not end:
            reasons = ", ".join(f"{count} {reason}" for reason, count in rejected.items()) or "no rows"
            raise InputError(f"{source} holds no instruction that can be kept ({reasons})")
        if not places["train"]:
            raise InputError(f"none of {found - rejected.total()} rows is left for training: lower the fractions")
        conversations = _write(turns_file, partial, places, options, progress)
        turns_file.unlink()
        kept = found - rejected.total()
        summary = {
            "found": found,
            "kept": kept,
            "rejected": rejected.total(),
            "rejected_by_reason": dict(sorted(rejected.items())),
            "conversations": conversations,
            "options": options.model_dump(mode="json"),
        }
        write_json(partial / "summary.json", summary)
    return summary


Source = Iterator[tuple[str, int, Row | str]]


def _completed(rows: Source, needed: Mapping[str, None]) -> Source:
    """Rows with every needed column, null where one lacks it, as JSON lines leave out what is null.

    Raises:
        InputError: no row, or none of the first 1,000, has one of the columns.
    """
    unseen, columns = set(needed), ""
    for count, (name, line, row) in enumerate(rows, 1):
        if isinstance(row, dict):
            if unseen:
                unseen -= row.keys()
                columns = ", ".join(map(str, row))
            if not needed.keys() <= row.keys():
                row = {**needed, **row}
        if unseen and columns and count == COLUMNS_WITHIN:
            break
        yield name, line, row
    if unseen and columns:
        raise InputError(
            f"column {min(unseen)!r} is in no row: there are {columns}; set instruct.merged_prompt and "
            "instruct.output_column to what is there"
        )


def _judge(row: Row | str, render: Renderer, options: InstructOptions) -> tuple[str, str, str]:
    """The reason for a reject or the empty text, the prompt, the answer."""
    if isinstance(row, Stranger):
        return "unsupported_file", "", ""
    if isinstance(row, str):
        return "malformed", "", ""
    prompt, answer = render(row), row[options.output_column]
    if not prompt.strip():
        return "empty_prompt", "", ""
    if answer is None or not str(answer).strip():
        return "empty_answer", "", ""
    return "", prompt, str(answer)


def _split_of(prompt: str, options: InstructOptions) -> str:
    """By a hash of the prompt, so that the same prompt never lies in two splits, in any order of the rows."""
    if not options.validation_fraction and not options.test_fraction:
        return "train"
    digest = blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    share = int.from_bytes(digest, "little") / 2**64
    if share < options.test_fraction:
        return "test"
    return "validation" if share < options.test_fraction + options.validation_fraction else "train"


def _write(
    turns_file: Path, folder: Path, places: dict[str, array[int]], options: InstructOptions, progress: Progress
) -> dict[str, int]:
    _, _, _, opening, closing = LAYOUTS[options.format]
    closing += b"\n"
    with turns_file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as turns:
        for name, file in FILES.items():
            bounds = places[name]
            order = permutations(len(bounds) // 2, options.conversation_extension, options.random_state)
            with (folder / file).open("wb", 1 << 20) as out:
                for joined in zip(*(indices.tolist() for indices in order), strict=True):
                    pieces = [turns[bounds[2 * source] : bounds[2 * source + 1]] for source in joined]
                    out.write(opening + b",".join(pieces) + closing)
            progress("instruct", len(bounds) // 2, None, f"{name} conversations")
    return {name: len(bounds) // 2 for name, bounds in places.items()}


def _rows(source: str | Path) -> Iterator[tuple[str, int, Row | str]]:
    """Each row with its file and line; a text where it is no row."""
    if str(source).startswith(HUB):
        yield from _hub_rows(str(source).removeprefix(HUB))
        return
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path} does not exist: name a file, a folder, or hub:owner/name")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    if not any(file.suffix.lower() in READERS for file in files):
        raise InputError(f"{path} holds no {', '.join(READERS)} file: convert or rename what is there")
    for file in files:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        if file.suffix.lower() not in READERS:
            yield name, 0, Stranger(f"ends in none of {', '.join(READERS)}")
            continue
        try:
            for line, row in READERS[file.suffix.lower()](file):
                yield name, line, row
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{file} cannot be read ({error}): write it again as UTF-8") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row | str]]:
    import polars as pl

    try:
        table = pl.scan_parquet(path)
        count = table.select(pl.len()).collect().item()
        for start in range(0, count, BATCH):
            rows = table.slice(start, BATCH).collect()
            yield from enumerate(rows.iter_rows(named=True), start + 1)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise InputError(f"{path} is no Parquet file ({error}): write it again") from error


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Row | str]]:
    with path.open("rb") as lines:
        if lines.read(len(BOM)) != BOM:
            lines.seek(0)
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                row = None
            yield number, row if isinstance(row, dict) else line.decode("utf-8", "backslashreplace")


def _csv_rows(path: Path) -> Iterator[tuple[int, Row | str]]:
    csv.field_size_limit(2**31 - 1)  # its own of 131,072 would end a file at one long text
    with open(path, encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        header = next(reader, None)
        if header is None:
            return
        for cells in reader:
            if cells:
                fits = len(cells) == len(header)
                yield reader.line_num, dict(zip(header, cells, strict=True)) if fits else ",".join(cells)


def _hub_rows(name: str) -> Iterator[tuple[str, int, Row | str]]:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise InputError(f"{HUB}{name} names no data set: write {HUB}owner/name")
    try:
        from datasets import load_dataset  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise MissingPart("datasets", "trl", "reading instruction data from the hub") from None
    try:
        rows = load_dataset(name, split="train", streaming=True)
        for number, row in enumerate(rows, 1):
            yield name, number, dict(row)
    except Exception as error:  # the hub client raises what its transports and file formats raise
        what = " ".join(str(error).split())
        raise InputError(
            f"{HUB}{name} cannot be read ({what}): check the name, its split train, and the network"
        ) from error


READERS: dict[str, Callable[[Path], Iterator[tuple[int, Row | str]]]] = {
    ".parquet": _parquet_rows,
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".csv": _csv_rows,
}


def _reject(reason: str, name: str, line: int, row: Row | str) -> bytes:
    record = {"reason": reason, "source_file": name, "line": line, "raw": str(row) if isinstance(row, str) else row}
    return orjson.dumps(record, default=str, option=orjson.OPT_NON_STR_KEYS)
