"""``finseek checkpoint inspect|dequantize|quantize|verify``; the others are in ``checkpoint_nemo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from finseek.cli.checkpoint_nemo import export_hf, import_nemo
from finseek.cli.conversion import (
    Kernel,
    Memory,
    Mtp,
    MtpOption,
    Resume,
    ShardSize,
    Source,
    Target,
    Workers,
    show,
    streaming,
    tell,
)
from finseek.cli.shared import JsonOption

if TYPE_CHECKING:
    from finseek.checkpoint import Inspection


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        help="Look at checkpoints and convert them, in bounded memory.",
        no_args_is_help=True,
        epilog="Example: finseek checkpoint inspect runs/demo/train/checkpoint",
    )
    group.command("inspect")(inspect)
    group.command("dequantize")(dequantize)
    group.command("quantize")(quantize)
    group.command("verify")(verify)
    group.command("import-nemo")(import_nemo)
    group.command("export-hf")(export_hf)
    app.add_typer(group, name="checkpoint")


def inspect(source: Source, as_json: JsonOption = False) -> None:
    """Say what a checkpoint is, and what is wrong.

    Example: finseek checkpoint inspect DeepSeek-V3
    """
    from finseek.checkpoint import inspect_checkpoint
    from finseek.cli.terminal import print_json, print_table

    found = inspect_checkpoint(source)
    if as_json:
        print_json(found.to_json())
    else:
        print_table(str(source), ("", "value"), _rows(found))
        for name in ("missing", "orphans", "faults", "notes"):
            lines = getattr(found, name)
            for line in lines[:20]:
                print(f"{name}: {line}")
            if len(lines) > 20:
                print(f"{name}: {len(lines) - 20:,} more (--json shows all)")
    if not found.complete:
        raise typer.Exit(1)


def _rows(found: Inspection) -> list[tuple[str, str]]:
    """An inspection for people; what does not apply is left out."""
    rows = [
        ("model", found.model_type),
        ("precision", found.precision + (f", blocks of {found.block[0]} x {found.block[1]}" if found.block else "")),
        ("parameters", f"{found.parameters / 1e9:,.2f} billion"),
        ("tensors", f"{found.tensors - found.scales:,}" + (f" and {found.scales:,} scales" if found.scales else "")),
        ("shards", f"{found.shards:,}, {found.nbytes / 1e9:,.2f} GB"),
        *((f"… {dtype}", f"{n:,} tensors, {nbytes / 1e9:,.2f} GB") for dtype, (n, nbytes) in found.dtypes.items()),
        ("layers", found.layers),
        ("routed experts", found.experts),
        ("MTP layers", None if found.mtp_depth is None else f"{found.mtp_layers} of {found.mtp_depth}"),
        ("complete", "yes" if found.complete else "no"),
    ]
    return [(name, str(value)) for name, value in rows if value is not None]


def dequantize(
    context: typer.Context,
    source: Source,
    target: Target,
    dtype: Annotated[str, typer.Option(help="bf16, fp16 or fp32.")] = "bf16",
    mtp: MtpOption = Mtp.keep,
    on_nan: Annotated[str, typer.Option(help="What a NaN weight does: error, stop or keep.")] = "error",
    workers: Workers = 8,
    memory: Memory = "2GiB",
    shard_size: ShardSize = "5GB",
    kernel: Kernel = "auto",
    resume: Resume = False,
    as_json: JsonOption = False,
) -> None:
    """Convert block FP8 to BF16, in bounded memory.

    Under torchrun the processes share the shards.

    Example: finseek checkpoint dequantize DeepSeek-V3 DeepSeek-V3-bf16 --memory 2GiB --resume

    Example: torchrun --no-python --nproc-per-node 8 finseek checkpoint dequantize V3 out --kernel triton
    """
    from finseek.checkpoint import DequantizeOptions, dequantize_checkpoint

    with streaming(workers, memory, shard_size, kernel, resume) as stream:
        options = DequantizeOptions(dtype, mtp.value, on_nan, stream)
        tell(dequantize_checkpoint(source, target, options, show(context, stream)), stream, as_json)


def quantize(
    context: typer.Context,
    source: Source,
    target: Target,
    form: Annotated[str, typer.Option("--format", help="F8_E4M3 or F8_E5M2.")] = "F8_E4M3",
    workers: Workers = 8,
    memory: Memory = "2GiB",
    shard_size: ShardSize = "5GB",
    resume: Resume = False,
    as_json: JsonOption = False,
) -> None:
    """Cast to block FP8 what DeepSeek keeps so.

    Example: finseek checkpoint quantize my-bf16 my-fp8
    """
    from finseek.checkpoint import QuantizeOptions, quantize_checkpoint

    with streaming(workers, memory, shard_size, resume=resume) as stream:
        options = QuantizeOptions(form, stream=stream)
        tell(quantize_checkpoint(source, target, options, show(context, stream)), stream, as_json)


def verify(
    context: typer.Context,
    folder: Source,
    against: Annotated[Optional[Path], typer.Option(help="FP8 checkpoint it was made from.")] = None,  # noqa: UP045
    sample: Annotated[float, typer.Option(help="Share of the tensors to hash.", min=0, max=1)] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Hash tensors against ledger, source, or both.

    Example: finseek checkpoint verify DeepSeek-V3-bf16 --against DeepSeek-V3 --sample 0.05
    """
    from dataclasses import asdict

    from finseek.checkpoint import verify_checkpoint
    from finseek.cli.terminal import print_json

    found = verify_checkpoint(folder, against, sample, seed, progress=show(context))
    if as_json:
        print_json(asdict(found))
    else:
        held = " and ".join(name for name, held in (("ledger", found.ledger), ("source", found.source)) if held)
        print(f"{found.tensors:,} of {found.of:,} tensors ({found.nbytes:,} bytes) agree with the {held}")
