"""``finseek report``: the page of one run, or several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finseek.cli.shared import JsonOption, SetOption


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("report", short_help="Write the page of a run, or compare several runs.")(report)


def report(
    context: typer.Context,
    sources: Annotated[list[Path], typer.Argument(help="YAML config of a run; with --compare, run folders.")],
    compare: Annotated[bool, typer.Option("--compare", help="Set the reports of several runs side by side.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Page of the comparison.")] = Path("comparison.html"),
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write report.html, report.json and the model card of a run, or one page that compares runs.

    Stages before the report run if they must. A comparison reads what the runs reported and computes nothing anew.

    Example: finseek report --compare runs/a runs/b --out comparison.html
    """
    from finseek.core.errors import InputError

    if compare:
        _compare(sources, out)
        return
    if len(sources) != 1:
        raise InputError(f"finseek report takes one config, not {len(sources)}: add --compare to compare run folders")
    from finseek.cli.shared import execute
    from finseek.cli.summary import print_summary

    print_summary(execute(context, sources[0], "report", assignments), as_json=as_json)


def _compare(runs: list[Path], out: Path) -> None:
    from finseek.core.artifacts import read_json, write_text
    from finseek.core.errors import InputError
    from finseek.report import compare_reports

    reports = {}
    for run in runs:
        found = run / "report.json"
        if not found.is_file():
            raise InputError(f"{run} holds no report.json: name run folders whose report was made")
        label = run.name if run.name not in reports else str(run)
        reports[label] = read_json(found)
    write_text(out, compare_reports(reports))
    print(out)
