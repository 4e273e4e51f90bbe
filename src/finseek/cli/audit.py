"""``finseek audit trials``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finseek.cli.run import JsonOption


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="What was looked at, and whether it leaks.", no_args_is_help=True)
    group.command("trials")(trials)
    group.callback()(lambda: None)
    app.add_typer(group, name="audit")


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
