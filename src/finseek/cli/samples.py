"""``finseek samples export`` and ``finseek instruct convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finseek.cli.run import JsonOption, SetOption


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    samples = typer.Typer(help="Samples in the formats of other tools.", no_args_is_help=True)
    samples.command("export")(export)
    samples.callback()(lambda: None)
    app.add_typer(samples, name="samples")
    instruct = typer.Typer(help="Instruction data.", no_args_is_help=True)
    instruct.command("convert")(convert)
    instruct.callback()(lambda: None)
    app.add_typer(instruct, name="instruct")


def export(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Argument(help="New folder.")],
    form: Annotated[str, typer.Option("--format", help="nemo, chat, sharegpt, parquet or huggingface.")] = "nemo",
    metadata: Annotated[bool, typer.Option(help="Keep ticker, date and action beside each sample.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Write the samples of a run for another trainer.

    Example: finseek samples export runs/study nemo-data --format nemo
    """
    from finseek.cli.terminal import print_json, print_table
    from finseek.samples.export import export_samples

    counts = export_samples(run / "samples", out, form, metadata=metadata)
    if as_json:
        print_json(counts)
    else:
        print_table(f"Samples in {out}", ("split", "samples"), list(counts.items()))


def convert(
    source: Annotated[str, typer.Argument(help="Parquet, JSONL or CSV file, a folder of them, or hub:owner/name.")],
    out: Annotated[Path, typer.Argument(help="New folder.")],
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Instruction data (Finance-Instruct and the like) to conversations, split before anything is joined.

    Example: finseek instruct convert rows.parquet out --set instruct.conversation_extension=3
    """
    from finseek.cli.terminal import TerminalProgress, print_json, print_table
    from finseek.pipeline.config import validate_part
    from finseek.samples.instruct_convert import InstructOptions, convert_instructions

    options = validate_part("instruct", InstructOptions, assignments or ())
    progress = TerminalProgress()
    summary = convert_instructions(source, out, options, progress)
    progress.finish()
    if as_json:
        print_json(summary)
        return
    rows = [(name, summary[name]) for name in ("found", "kept", "rejected")]
    rows += [(f"  {reason}", count) for reason, count in summary["rejected_by_reason"].items()]
    rows += [(f"conversations in {split}", count) for split, count in summary["conversations"].items()]
    print_table(f"Instruction data in {out}", ("", "number"), rows)
