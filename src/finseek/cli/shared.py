"""What the commands share: options, the config as this machine completes it, a run with progress on the terminal."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from finseek.core.progress import Progress
    from finseek.pipeline import LoadedConfig, RunResult
    from finseek.train.job import Node

ConfigArgument = Annotated[Path, typer.Argument(help="YAML config.")]
SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a value; may be given several times."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def environment() -> dict[str, str]:
    """The variables of .env and of the process, which win: the one place that reads them."""
    from finseek.pipeline.overrides import read_dotenv

    return {**read_dotenv(Path(".env")), **os.environ}


def load(config: Path | None, assignments: Sequence[str] | None) -> LoadedConfig:
    """The config with .env and the environment applied."""
    # Imports leave no garbage, and looking for it among ever more modules costs a tenth of a short run.
    gc.disable()
    from finseek.pipeline.config_file import load_config

    gc.freeze()
    gc.enable()
    return load_config(config, assignments or (), environment())


def execute(
    context: typer.Context,
    config: Path,
    last: str | None = None,
    assignments: Sequence[str] | None = None,
    node: Node | None = None,
) -> RunResult:
    """Run the stages of a config up to ``last``, with progress on the terminal."""
    return execute_loaded(context, load(config, assignments), last=last, node=node)


def execute_loaded(
    context: typer.Context,
    loaded: LoadedConfig,
    first: str | None = None,
    last: str | None = None,
    skip: Sequence[str] = (),
    node: Node | None = None,
) -> RunResult:
    """Run stages with progress on the terminal."""
    from finseek.pipeline import run as run_stages
    from finseek.train.job import Node

    with watched(context) as (progress, say):
        detail = say if context.obj["verbose"] else _nothing
        return run_stages(
            loaded,
            first=first,
            last=last,
            skip=skip,
            progress=progress,
            say=say,
            detail=detail,
            node=node or Node(),
        )


@contextmanager
def watched(context: typer.Context) -> Iterator[tuple[Progress, Callable[[str], None]]]:
    """Progress and a teller of lines for long work on the terminal; silent ones with --quiet."""
    from finseek.cli.terminal import TerminalProgress, say
    from finseek.core.progress import silent

    if context.obj["quiet"]:
        yield silent, _nothing
        return
    progress = TerminalProgress()

    def tell(line: str) -> None:
        progress.finish()
        say(line)

    try:
        yield progress, tell
    finally:
        progress.finish()


def _nothing(line: str) -> None:
    pass
