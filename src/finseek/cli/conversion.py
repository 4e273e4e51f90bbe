"""What the commands on checkpoints share: options, the stream that they describe, progress and result."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from finseek.checkpoint import Conversion, StreamOptions
    from finseek.core.progress import Progress

UNITS = {
    "": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TB": 10**12,
    "TIB": 2**40,
}

Source = Annotated[Path, typer.Argument(help="Checkpoint folder.")]
Target = Annotated[Path, typer.Argument(help="New folder.")]
Workers = Annotated[int, typer.Option(help="Threads of each process.")]
Memory = Annotated[str, typer.Option(help="Memory for scales and buffers of each process, like 2GiB.")]
ShardSize = Annotated[str, typer.Option("--shard-size", help="Largest new shard, like 5GB.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what was begun in the new folder.")]
Kernel = Annotated[str, typer.Option(help="auto, torch, numba or triton.")]


class Mtp(StrEnum):
    """What becomes of the MTP layers."""

    keep = "keep"
    drop = "drop"


MtpOption = Annotated[Mtp, typer.Option(help="Keep or drop the MTP layers.")]


def size(text: str) -> int:
    """Bytes of a size like 2GiB or 5GB.

    Raises:
        InputError: for anything else.
    """
    from finseek.core.errors import InputError

    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    unit = found[2].upper() if found else None
    if found is None or unit not in UNITS:
        raise InputError(f"size {text!r} is not a number with a unit: write 2GiB, 500MB or 5GB")
    return int(float(found[1]) * UNITS[unit])


def show(context: typer.Context, stream: StreamOptions | None = None) -> Progress:
    """Of the first process alone, and none where asked to be quiet."""
    from finseek.cli.terminal import TerminalProgress
    from finseek.core.progress import silent

    return silent if context.obj["quiet"] or (stream and stream.rank) else TerminalProgress()


def streaming(
    workers: int, memory: str, shard_size: str, kernel: str = "auto", resume: bool = False
) -> AbstractContextManager[StreamOptions]:
    """How the bytes flow, in this process or in all that torchrun has started."""
    from finseek.checkpoint import StreamOptions
    from finseek.checkpoint.stream.processes import sharing

    return sharing(StreamOptions(workers, size(memory), size(shard_size), resume, kernel=kernel), os.environ)


def say_once(line: str) -> None:
    """Print a result in the first of the processes that torchrun started."""
    if os.environ.get("RANK", "0") == "0":
        print(line)


def tell(conversion: Conversion, stream: StreamOptions, as_json: bool) -> None:
    """Print what a conversion did, once."""
    from dataclasses import asdict

    from finseek.cli.terminal import print_json

    if stream.rank:
        return
    if as_json:
        print_json({**asdict(conversion), "folder": str(conversion.folder)})
        return
    print(
        f"{conversion.folder}: {conversion.tensors:,} tensors, {conversion.nbytes:,} bytes, {conversion.shards} shards"
        + (f", {conversion.resumed} of them were there" if conversion.resumed else "")
        + (f", {conversion.nonfinite:,} numbers are not finite" if conversion.nonfinite else "")
    )
