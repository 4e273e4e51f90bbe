"""``finseek predict``: what the model of a run says of a day."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from finseek.cli.shared import environment

if TYPE_CHECKING:
    from finseek.pipeline.asking import Opinion


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("predict", short_help="Ask the model of a run as of the close of a day.")(predict)


def predict(
    context: typer.Context,
    run: Annotated[Path, typer.Option("--run", help="Folder of a finished run.")],
    as_of: Annotated[str, typer.Option("--as-of", metavar="DATE", help="Session, as in 2025-01-31.")],
    ticker: Annotated[Optional[str], typer.Argument(help="Whom to ask about.")] = None,  # noqa: UP045
    everyone: Annotated[bool, typer.Option("--all", help="Every ticker that has a bar that day.")] = False,
    prices: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Newer prices than the run's, CSV or Parquet."),
    ] = None,
    form: Annotated[
        Optional[Literal["text", "table", "json"]],  # noqa: UP045
        typer.Option("--format", help="By default text for one ticker, a table for all."),
    ] = None,
) -> None:
    """Ask the model of a run as of the close of a session; nothing later enters the prompt.

    Example: finseek predict --run runs/demo S0 --as-of 2024-01-31
    """
    from finseek.cli.terminal import TerminalProgress, print_json, say
    from finseek.core.errors import InputError
    from finseek.core.progress import silent
    from finseek.pipeline.asking import ask_run

    if (ticker is None) == (not everyone):
        raise InputError("give either a TICKER or --all")
    try:
        day = datetime.strptime(as_of, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise InputError(f"--as-of {as_of!r} is no date of the form 2025-01-31") from None
    progress = silent if context.obj["quiet"] else TerminalProgress()
    names = [ticker.strip().upper()] if ticker else None
    opinions = ask_run(run, names, day, prices, environment(), progress)
    if isinstance(progress, TerminalProgress):
        progress.finish()
    if opinions and opinions[0].seen and not context.obj["quiet"]:
        say(f"{day} lies in the span that the model was trained on: its answer proves nothing")
    form = form or ("table" if everyone else "text")
    if form == "json":
        print_json([_as_json(opinion) for opinion in opinions])
    elif form == "table":
        _print_table(opinions)
    else:
        print("\n\n".join(map(_as_text, opinions)))


def _chances(opinion: Opinion) -> list[tuple[str, float]]:
    return sorted((opinion.p or {}).items(), key=lambda pair: -pair[1])


def _as_json(opinion: Opinion) -> dict[str, object]:
    import msgspec

    content: dict[str, object] = msgspec.to_builtins(opinion)
    return content


def _as_text(opinion: Opinion) -> str:
    answer = opinion.action or f"no action ({opinion.status})"
    chances = ", ".join(f"{action} {chance:.1%}" for action, chance in _chances(opinion))
    head = f"{opinion.ticker} as of {opinion.as_of_date}: {answer}"
    return "\n".join(part for part in (head, chances, opinion.text) if part)


def _print_table(opinions: list[Opinion]) -> None:
    from finseek.cli.terminal import print_table
    from finseek.core.actions import ACTIONS

    shown = [action for action in ACTIONS if any(opinion.p for opinion in opinions)]
    rows = [
        (
            opinion.ticker,
            opinion.action or opinion.status,
            *(f"{opinion.p[action]:.3f}" if opinion.p else "–" for action in shown),
        )
        for opinion in opinions
    ]
    title = f"As of {opinions[0].as_of_date}" if opinions else "No ticker"
    print_table(title, ("ticker", "action", *shown), rows)
