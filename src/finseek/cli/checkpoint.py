"""``finseek checkpoint inspect|dequantize|quantize|verify|import-nemo|export-hf``."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from finseek.cli.run import JsonOption

if TYPE_CHECKING:
    from finseek.checkpoint import Conversion, StreamOptions

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

Source = Annotated[Path, typer.Argument(help="Checkpoint folder.")]
Target = Annotated[Path, typer.Argument(help="New folder.")]
Workers = Annotated[int, typer.Option(help="Threads.")]
Memory = Annotated[str, typer.Option(help="Memory for scales and buffers, like 2GiB.")]
ShardSize = Annotated[str, typer.Option("--shard-size", help="Largest new shard, like 5GB.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what was begun in the new folder.")]
Kernel = Annotated[str, typer.Option(help="auto, torch, numba or triton.")]


class Mtp(StrEnum):
    """What becomes of the MTP layers."""

    keep = "keep"
    drop = "drop"


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="Look at checkpoints and convert them, in bounded memory.", no_args_is_help=True)
    group.command("inspect")(inspect)
    group.command("dequantize")(dequantize)
    group.command("quantize")(quantize)
    group.command("verify")(verify)
    group.command("import-nemo")(import_nemo)
    group.command("export-hf")(export_hf)
    app.add_typer(group, name="checkpoint")


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


def inspect(source: Source, as_json: JsonOption = False) -> None:
    """Say what a checkpoint is and what is wrong with it, from its headers alone.

    Example: finseek checkpoint inspect DeepSeek-V3
    """
    from finseek.checkpoint import inspect_checkpoint
    from finseek.cli.terminal import print_json, print_table

    found = inspect_checkpoint(source)
    if as_json:
        print_json(found.to_json())
    else:
        shown = found.to_json()
        lists = ("missing", "orphans", "faults", "notes")
        print_table(str(source), ("", "value"), [(k, v) for k, v in shown.items() if k not in lists])
        for name in lists:
            for line in shown[name][:20]:
                print(f"{name}: {line}")
            if len(shown[name]) > 20:
                print(f"{name}: {len(shown[name]) - 20} more (--json shows all)")
    if not found.complete:
        raise typer.Exit(1)


def dequantize(
    source: Source,
    target: Target,
    dtype: Annotated[str, typer.Option(help="bf16, fp16 or fp32.")] = "bf16",
    mtp: Annotated[Mtp, typer.Option(help="Keep or drop the MTP layers.")] = Mtp.keep,
    on_nan: Annotated[str, typer.Option(help="What a NaN weight does: error, stop or keep.")] = "error",
    workers: Workers = 4,
    memory: Memory = "2GiB",
    shard_size: ShardSize = "5GB",
    kernel: Kernel = "auto",
    resume: Resume = False,
    as_json: JsonOption = False,
) -> None:
    """Convert a block-FP8 checkpoint; memory does not grow with its size.

    Example: finseek checkpoint dequantize DeepSeek-V3 DeepSeek-V3-bf16 --memory 2GiB --resume
    """
    from finseek.checkpoint import DequantizeOptions, dequantize_checkpoint

    options = DequantizeOptions(dtype, mtp.value, on_nan, _stream(workers, memory, shard_size, kernel, resume))
    _done(dequantize_checkpoint(source, target, options, _progress()), as_json)


def quantize(
    source: Source,
    target: Target,
    form: Annotated[str, typer.Option("--format", help="F8_E4M3 or F8_E5M2.")] = "F8_E4M3",
    workers: Workers = 4,
    memory: Memory = "2GiB",
    shard_size: ShardSize = "5GB",
    resume: Resume = False,
    as_json: JsonOption = False,
) -> None:
    """Cast a DeepSeek checkpoint to block FP8, the weights that DeepSeek keeps so with their scales.

    Example: finseek checkpoint quantize my-bf16 my-fp8
    """
    from finseek.checkpoint import QuantizeOptions, quantize_checkpoint

    options = QuantizeOptions(form, stream=_stream(workers, memory, shard_size, "auto", resume))
    _done(quantize_checkpoint(source, target, options, _progress()), as_json)


def verify(
    folder: Source,
    against: Annotated[Optional[Path], typer.Option(help="FP8 checkpoint it was made from.")] = None,  # noqa: UP045
    sample: Annotated[float, typer.Option(help="Share of the tensors to hash.", min=0, max=1)] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Hash the tensors of a converted checkpoint against its ledger, its source, or both.

    Example: finseek checkpoint verify DeepSeek-V3-bf16 --against DeepSeek-V3 --sample 0.05
    """
    from dataclasses import asdict

    from finseek.checkpoint import verify_checkpoint
    from finseek.cli.terminal import print_json

    found = verify_checkpoint(folder, against, sample, seed, progress=_progress())
    if as_json:
        print_json(asdict(found))
    else:
        held = " and ".join(name for name, held in (("ledger", found.ledger), ("source", found.source)) if held)
        print(f"{found.tensors:,} of {found.of:,} tensors ({found.nbytes:,} bytes) agree with the {held}")


def import_nemo(
    source: Source,
    target: Target,
    expert_parallel: Annotated[int, typer.Option(help="Processes that share the routed experts.")] = 1,
    pipeline_parallel: Annotated[int, typer.Option(help="Pipeline stages.")] = 1,
    workers: Workers = 4,
    memory: Memory = "2GiB",
    as_json: JsonOption = False,
) -> None:
    """Make a checkpoint ready for NeMo AutoModel: BF16 weights, and the YAML that loads them in shares.

    Example: finseek checkpoint import-nemo DeepSeek-V3 DeepSeek-V3-automodel --expert-parallel 64
    """
    from finseek.checkpoint import DequantizeOptions, NemoOptions, import_automodel

    options = NemoOptions(
        expert_model_parallel_size=expert_parallel,
        pipeline_model_parallel_size=pipeline_parallel,
        dequantize=DequantizeOptions(stream=_stream(workers, memory, "5GB", "auto", False)),
    )
    _done(import_automodel(source, target, options, _progress()), as_json)


def export_hf(
    source: Annotated[Path, typer.Argument(help="AutoModel checkpoint, adapter folder, or training state.")],
    target: Target,
    base: Annotated[Optional[Path], typer.Option(help="Checkpoint that training began from.")] = None,  # noqa: UP045
    adapter: Annotated[str, typer.Option(help="merge the adapter into the base, or keep it apart.")] = "merge",
    as_json: JsonOption = False,
) -> None:
    """Write a Hugging Face folder from what a training left.

    Example: finseek checkpoint export-hf runs/lora/train out --base DeepSeek-V3-bf16
    """
    from finseek.checkpoint import export_hf as export

    _done(export(source, target, base, adapter, progress=_progress()), as_json)


def _progress() -> Any:
    from finseek.cli.terminal import TerminalProgress

    return TerminalProgress()


def _stream(workers: int, memory: str, shard_size: str, kernel: str, resume: bool) -> StreamOptions:
    from finseek.checkpoint import StreamOptions

    return StreamOptions(workers, size(memory), size(shard_size), resume, kernel=kernel)


def _done(conversion: Conversion, as_json: bool) -> None:
    from dataclasses import asdict

    from finseek.cli.terminal import print_json

    if as_json:
        print_json({**asdict(conversion), "folder": str(conversion.folder)})
        return
    print(
        f"{conversion.folder}: {conversion.tensors:,} tensors, {conversion.nbytes:,} bytes, {conversion.shards} shards"
        + (f", {conversion.resumed} of them were there" if conversion.resumed else "")
        + (f", {conversion.nonfinite:,} numbers are not finite" if conversion.nonfinite else "")
    )
