"""``finseek theses parse|split|folds|preview``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from finseek.cli.shared import ConfigArgument, JsonOption, SetOption


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        help="Read, split and look at theses.",
        no_args_is_help=True,
        epilog="Example: finseek theses parse raw_xml --out all.jsonl --rejects rejects.jsonl",
    )
    group.command("parse")(parse)
    group.command("split")(split)
    group.command("folds")(folds)
    group.command("preview")(preview)
    app.add_typer(group, name="theses")


def parse(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="Folder, file or archive of theses.")],
    out: Annotated[Path, typer.Option("--out", help="JSONL of the theses that were kept.")],
    rejects: Annotated[Path, typer.Option("--rejects", help="JSONL of what was refused, with the reason.")],
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read theses; every one that comes in is kept or written to the rejects with its reason.

    Example: finseek theses parse raw_xml --out all.jsonl --rejects rejects.jsonl
    """
    from finseek.cli.terminal import TerminalProgress, print_json, print_table
    from finseek.core.errors import InputError
    from finseek.core.progress import silent
    from finseek.pipeline.config_file import load_config
    from finseek.theses import write_theses

    if out.resolve() == rejects.resolve():
        raise InputError(f"--out and --rejects are both {out}: name two files")
    for file in (out, rejects):
        if file.resolve() == source.resolve():
            raise InputError(f"{file} is the source itself, which the result would replace: write elsewhere")
        if source.is_dir() and file.resolve().is_relative_to(source.resolve()):
            raise InputError(
                f"{file} lies inside {source}, where the next run would read it as theses: write elsewhere"
            )
    options = load_config(None, assignments or ()).config.theses
    progress = TerminalProgress()
    quiet = context.obj["quiet"]
    summary = write_theses(source, out, rejects, options, silent if quiet else progress)
    progress.finish()
    if as_json:
        print_json(summary)
        return
    rows = [("found", summary["found"]), ("kept", summary["kept"]), ("rejected", summary["rejected"])]
    rows += [(f"  {reason}", count) for reason, count in summary["rejected_by_reason"].items()]
    print_table(f"Theses of {source}", ("", "number"), rows)


def split(
    context: typer.Context, config: ConfigArgument, assignments: SetOption = None, as_json: JsonOption = False
) -> None:
    """Split the theses of a config by time and print the certificate.

    Example: finseek theses split config.yaml --json
    """
    from finseek.cli.shared import execute
    from finseek.cli.terminal import print_json, print_table
    from finseek.core.artifacts import read_json

    result = execute(context, config, last="split", assignments=assignments)
    certificate = read_json(result.paths.split / "certificate.json")
    if as_json:
        print_json(certificate)
        return
    counts = result.outcomes[-1].counts
    print_table(f"Splits in {result.paths.split}", ("", "theses"), list(counts.items()))


def folds(
    context: typer.Context,
    config: ConfigArgument,
    out: Annotated[Path, typer.Argument(help="New folder, with a folder a fold.")],
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Walk-forward or combinatorial purged folds of the theses of a config; --set takes folds.KEY=VALUE, too.

    Example: finseek theses folds config.yaml folds --set folds.scheme=combinatorial --set folds.n_folds=6
    """
    from finseek.cli.shared import execute
    from finseek.cli.terminal import print_json, print_table
    from finseek.core.errors import ConfigError, InputError
    from finseek.market import PricesOptions, load_prices
    from finseek.pipeline.config_file import validate_part
    from finseek.theses import FoldOptions, write_folds

    own = [text for text in assignments or () if text.startswith("folds.")]
    options = validate_part("folds", FoldOptions, own)
    result = execute(context, config, last="prices", assignments=[t for t in assignments or () if t not in own])
    if result.outcomes[-1].status == "left out":
        raise InputError(f"folds count sessions and {config} names no prices to take them from: set prices.source")
    if result.config.split and result.config.split.realised:
        raise ConfigError("folds hold the theses' own actions, not realised labels: add --set split.realised=null")
    prices = load_prices(
        result.paths.prices / "prices.parquet", PricesOptions(benchmark=result.config.prices.benchmark)
    )
    certificates = write_folds(result.paths.theses / "all.jsonl", out, prices.sessions, options)
    if as_json:
        print_json(certificates)
        return
    rows = [
        (c["fold"], ", ".join("–".join(block) for block in c["test_blocks"]), *c["kept"].values(),
         sum(c["dropped"].values()))
        for c in certificates
    ]  # fmt: skip
    print_table(f"Folds in {out}", ("fold", "tested", "train", "test", "dropped"), rows)


def preview(
    context: typer.Context,
    config: ConfigArgument,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="How many samples to show.")] = 1,
    ticker: Annotated[Optional[str], typer.Option(help="Only samples of this ticker.")] = None,  # noqa: UP045
    assignments: SetOption = None,
) -> None:
    """Show training samples as the model will see them, the part that it learns coloured.

    Example: finseek theses preview config.yaml --ticker AMZN
    """
    from finseek.cli.preview import show_samples
    from finseek.cli.shared import execute

    result = execute(context, config, last="samples", assignments=assignments)
    show_samples(result, number, ticker.upper() if ticker else None)
