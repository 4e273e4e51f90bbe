"""``finseek samples export|mix`` and ``finseek instruct convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finseek.cli.shared import JsonOption, SetOption


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    samples = typer.Typer(
        help="Samples in the formats of other tools.",
        no_args_is_help=True,
        epilog="Example: finseek samples mix mixed.jsonl a.jsonl=0.8 b.jsonl=0.2",
    )
    samples.command("export")(export)
    samples.command("mix")(mix)
    app.add_typer(samples, name="samples")
    instruct = typer.Typer(
        help="Instruction data.", no_args_is_help=True, epilog="Example: finseek instruct convert rows.parquet out"
    )
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
    from finseek.core.errors import InputError
    from finseek.samples.export import export_samples

    if not (run / "samples").is_dir():
        raise InputError(f"{run} is no run folder with samples: make them with finseek run CONFIG --until samples")
    counts = export_samples(run / "samples", out, form, metadata=metadata)
    if as_json:
        print_json(counts)
    else:
        print_table(f"Samples in {out}", ("split", "samples"), list(counts.items()))


def mix(
    out: Annotated[Path, typer.Argument(help="The mixed JSON-lines file.")],
    parts: Annotated[list[str], typer.Argument(metavar="FILE=SHARE...", help="JSON-lines files with their shares.")],
    seed: Annotated[int, typer.Option(help="Of the choice and of the order.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Mix files of samples in given proportions; the scarcest part decides how many there are in all.

    Example: finseek samples mix mixed.jsonl runs/study/samples/training.jsonl=0.7 instruct/training.jsonl=0.3
    """
    from finseek.cli.terminal import print_json, print_table
    from finseek.core.errors import InputError
    from finseek.samples.mix import mix_files

    shares: dict[Path, float] = {}
    for part in parts:
        name, _, share = part.rpartition("=")
        try:
            number = float(share)
        except ValueError:
            number = 0.0
        if not name or not 0 < number < float("inf"):
            raise InputError(f"{part} is no FILE=SHARE with a share above zero: write for example a.jsonl=0.7")
        if Path(name) in shares:
            raise InputError(f"{name} is named twice: give it one share")
        shares[Path(name)] = number
    counts = mix_files(shares, out, seed=seed)
    if as_json:
        print_json(counts)
        return
    rows = [(file, count["lines"], count["taken"]) for file, count in counts.items()]
    print_table(f"Samples in {out}", ("file", "lines", "taken"), rows)


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
    from finseek.pipeline.config_file import validate_part
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
