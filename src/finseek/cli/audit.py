"""``finseek audit``: the audit of a run, its placebos, the chain of trials."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from finseek.cli.shared import ConfigArgument, JsonOption, SetOption


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        help="What was looked at, and whether it leaks.",
        no_args_is_help=True,
        epilog="Example: finseek audit trials verify",
    )
    group.command("run")(run)
    group.command("placebo")(placebo)
    group.command("trials")(trials)
    group.callback()(lambda: None)
    app.add_typer(group, name="audit")


def run(
    context: typer.Context, config: ConfigArgument, assignments: SetOption = None, as_json: JsonOption = False
) -> None:
    """Run a config up to its audit, and show what was found: leaks, hindsight, what the model may have read.

    Example: finseek audit run config.yaml
    """
    from finseek.cli.shared import execute
    from finseek.cli.terminal import print_json, print_table
    from finseek.core.artifacts import read_json

    folder = execute(context, config, last="audit", assignments=assignments).paths.audit
    found = {name: read_json(folder / f"{name}.json") for name in ("leaks", "contamination")}
    if as_json:
        print_json(found)
        return
    rows = [(name, finding["status"], finding["summary"]) for name, finding in found.items()]
    print_table("Audit", ("check", "result", "summary"), rows)
    print(f"files: {folder}")


def placebo(
    context: typer.Context,
    config: ConfigArgument,
    only: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--only", metavar="NAME", help="One placebo; may be given several times. All by default."),
    ] = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train and score again on records without the truth: shuffled labels, shifted dates, swapped tickers, no names.

    Exit code 1 where a model finds labels that nothing in its prompt can know: then the prompt leaks.

    Example: finseek audit placebo config.yaml --only shuffled_labels
    """
    from finseek.audit.placebo import PLACEBOS
    from finseek.cli.shared import load, watched
    from finseek.cli.summary import estimate
    from finseek.cli.terminal import print_json, print_table
    from finseek.pipeline.placebos import run_placebos

    with watched(context) as (progress, say):
        found = run_placebos(load(config, assignments), only or tuple(PLACEBOS), progress, say)
    if as_json:
        print_json(found)
    else:
        columns = ("placebo", "real", "placebo", "majority", "change [95 % interval]", "leak")
        accuracies = ("accuracy_real", "accuracy_placebo", "accuracy_majority")
        rows = [
            (
                one["placebo"],
                *(f"{one[name]:.3f}" for name in accuracies),
                estimate(one["change"], "+.3f"),
                "yes" if one["leak"] else "no",
            )
            for one in found
        ]
        print_table("Accuracy on placebos", columns, rows)
        for one in found:
            print(f"{one['placebo']}: a score that stays means that {one['says']}")
    if any(one["leak"] for one in found):
        raise typer.Exit(1)


def trials(
    action: Annotated[str, typer.Argument(help="show or verify.")] = "show",
    chain: Annotated[Path, typer.Option("--chain", help="The chain of trials.")] = Path("runs/trials.jsonl"),
    as_json: JsonOption = False,
) -> None:
    """Prove the chain of looks at test splits whole, and show it.

    Example: finseek audit trials verify
    """
    import msgspec

    from finseek.audit.trials import verify_trials
    from finseek.cli.terminal import print_json, print_table
    from finseek.core.errors import InputError
    from finseek.pipeline.trials import recorded_heads

    if action not in ("show", "verify"):
        raise InputError(f"{action!r} is none of show, verify")
    heads = recorded_heads(chain)
    if not chain.exists() and not heads:
        raise InputError(f"{chain} does not exist: no run below that folder looked at a test split")
    found = verify_trials(chain, heads)
    if as_json:
        print_json([msgspec.to_builtins(trial) for trial in found])
        return
    if action == "show":
        rows = [
            (
                t.number,
                t.at[:16],
                t.kind,
                t.test_data[:12],
                t.config[:12],
                "–" if t.sharpe is None else f"{t.sharpe:.4f}",
            )
            for t in found
        ]
        print_table("Trials", ("number", "at", "kind", "test data", "config", "Sharpe a session"), rows)
    distinct = len({(trial.test_data, trial.config) for trial in found})
    print(f"{distinct} trials in {len(found)} lines; the chain is whole")
