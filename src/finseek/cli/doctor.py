"""``finseek doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finseek.cli.shared import JsonOption, environment


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor", short_help="What this machine can run, and what is missing.")(doctor)


def doctor(
    folder: Annotated[Path, typer.Option("--runs", help="Folder that would hold the runs.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Say what this machine can run, what is missing, and the command that mends it.

    Example: finseek doctor
    """
    from dataclasses import asdict

    from finseek.cli.terminal import print_json, print_table
    from finseek.doctor import examine
    from finseek.pipeline.overrides import SECRETS

    given = environment()
    checks = list(examine(folder, {name: bool(given.get(name)) for name in SECRETS}))
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        print_table(
            "This machine", ("part", "state", "detail", "fix"), [tuple(asdict(c).values()) for c in checks], words=True
        )
    if any(check.state == "problem" for check in checks):
        raise typer.Exit(1)
