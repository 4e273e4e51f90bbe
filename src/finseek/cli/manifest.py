"""``finseek manifest verify`` and ``finseek schema``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finseek.cli.shared import JsonOption


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        help="Check what a run claims.", no_args_is_help=True, epilog="Example: finseek manifest verify runs/demo"
    )
    group.command("verify")(verify)
    group.callback()(lambda: None)
    app.add_typer(group, name="manifest")
    app.command("schema", short_help="Print the JSON schema of the config.")(schema)


def verify(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    as_json: JsonOption = False,
) -> None:
    """Recompute every hash of a run folder; name each file that is missing or altered.

    Example: finseek manifest verify runs/demo
    """
    from finseek.cli.terminal import print_json
    from finseek.pipeline.manifest import read_manifest, verify_manifest

    findings = list(verify_manifest(run))
    if as_json:
        print_json(
            [{"path": finding.path, "problem": finding.problem, "note": finding.is_note} for finding in findings]
        )
    else:
        for finding in findings:
            print(f"{finding.path} {finding.problem}")
        if all(finding.is_note for finding in findings):
            print(f"{len(read_manifest(run / 'manifest.json')['artifacts'])} artifacts are as the manifest says")
    if not all(finding.is_note for finding in findings):
        raise typer.Exit(1)


def schema() -> None:
    """Print the JSON schema of the config, for editors and for checks elsewhere.

    Example: finseek schema
    """
    from finseek.cli.terminal import print_json
    from finseek.pipeline.config import json_schema

    print_json(json_schema())
