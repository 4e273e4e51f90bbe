"""``finseek run``, its stages by name, ``finseek demo`` and ``finseek init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from finseek.cli.shared import ConfigArgument, JsonOption, SetOption, execute, execute_loaded, load


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("demo", short_help="The embedded example, from theses to report.")(demo)
    app.command("run", short_help="Run all stages of a config, or some of them.")(run)
    app.command("init", short_help="Write a commented config and its folders.")(init)
    app.command("train", short_help="Train the model of a config.")(train)


def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="Folder that holds the run.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed of market, theses and model.", min=0)] = 0,
    alpha: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Strength of the planted signal; 0 makes a market without any.", min=-1, max=1),
    ] = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """The embedded example, end to end: a made-up market, theses on it, a tiny DeepSeek-V3, a report.

    Example: finseek demo --alpha 0 --out nothing-to-find
    """
    from finseek.cli.summary import print_summary
    from finseek.pipeline import demo as embedded

    loaded = embedded.prepare(out, seed=seed, alpha=alpha, assignments=assignments or ())
    print_summary(execute_loaded(context, loaded), as_json=as_json)


def run(
    context: typer.Context,
    config: ConfigArgument,
    first: Annotated[Optional[str], typer.Option("--from", metavar="STAGE", help="Begin with this stage.")] = None,  # noqa: UP045
    last: Annotated[Optional[str], typer.Option("--until", metavar="STAGE", help="End with this stage.")] = None,  # noqa: UP045
    skip: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--skip", metavar="STAGE", help="Leave out a stage; may be given several times."),
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Few rows, ten steps: does everything hold together?")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the config, say what would run.")] = False,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the stages of a config: theses prices split samples train evaluate backtest audit report.

    A stage whose code, config part and inputs are unchanged is not run again. Paths in a config are
    relative to the folder in which the command is given.

    Example: finseek run configs/theses-cpu.yaml --set theses.source=my/theses --set prices.source=my/prices.parquet
    """
    from finseek.cli.summary import print_plan, print_summary
    from finseek.pipeline import smoke_test
    from finseek.pipeline.run import plan_run

    loaded = load(config, assignments)
    if smoke:
        loaded = smoke_test(loaded)
    if dry_run:
        print_plan(plan_run(loaded, first=first, last=last, skip=skip or ()), as_json=as_json)
        return
    print_summary(execute_loaded(context, loaded, first, last, skip or ()), as_json=as_json)


def train(
    context: typer.Context,
    config: ConfigArgument,
    check: Annotated[
        bool, typer.Option("--check", help="Look at masks, gradients, experts and one batch; train nothing.")
    ] = False,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the model of a config; earlier stages run if they must.

    Example: finseek train config.yaml --check
    """
    from finseek.cli.summary import print_summary

    if check:
        from finseek.cli.terminal import print_json
        from finseek.pipeline.learning import check_the_training

        result = execute(context, config, "samples", assignments)
        found = check_the_training(result.config, result.paths)
        if as_json:
            print_json(found)
        else:
            words = {True: "passed", False: "FAILED", None: "open"}
            for each in found:
                print(f"{words[each['passed']]:<8}{each['name']}: {each['detail']}")
        raise typer.Exit(2 if any(each["passed"] is False for each in found) else 0)
    print_summary(execute(context, config, "train", assignments), as_json=as_json)


def init(context: typer.Context, folder: Annotated[Path, typer.Argument(help="New or empty folder.")]) -> None:
    """Write a commented config, .env.example and the folders for your own theses and prices.

    Example: finseek init my-study
    """
    from finseek.pipeline.scaffold import write_scaffold

    for path in write_scaffold(folder):
        print(path)
    if not context.obj["quiet"]:
        from finseek.cli.terminal import say

        say(f"next: put theses into {folder}/data/theses and prices into {folder}/data/prices.parquet, then")
        say(f"  cd {folder} && finseek run config.yaml --dry-run")
