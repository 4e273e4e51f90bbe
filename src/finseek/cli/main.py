"""Entry point: commands are found here, their work is imported when they run."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Annotated, Any, Optional

import typer

import finseek
from finseek.cli import (
    audit,
    backtest,
    checkpoint,
    doctor,
    evaluate,
    launch,
    manifest,
    plan,
    predict,
    prices,
    report,
    run,
    samples,
    theses,
)

app = typer.Typer(
    name="finseek",
    help="Fine-tune DeepSeek-V3-class models on dated financial theses, and test honestly whether they can trade.",
    epilog="Example: finseek demo. Every command has its own: finseek run --help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    run,
    plan,
    report,
    theses,
    prices,
    samples,
    evaluate,
    predict,
    backtest,
    checkpoint,
    audit,
    manifest,
    doctor,
    launch,
):
    module.register(app)


def _version(asked: bool) -> None:
    if asked:
        print(f"finseek {finseek.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Name each file that a run writes.")] = False,
    version: Annotated[
        Optional[bool], typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")  # noqa: UP045
    ] = None,
) -> None:
    context.obj = {"quiet": quiet, "verbose": verbose, "debug": debug}


FLAGS = ("--debug", "--quiet", "-q", "--verbose", "-v")


def flags_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with the flags of finseek before the command, wherever they were given."""
    return sorted(arguments, key=lambda word: word not in FLAGS) if "--" not in arguments else list(arguments)


def only(arguments: Iterable[str]) -> typer.Typer:
    """The application with the one command that the arguments name: typer builds every command that it holds."""
    name = next((word for word in arguments if word not in FLAGS), None)
    alone = copy(app)
    alone.registered_commands = [command for command in app.registered_commands if command.name == name]
    alone.registered_groups = [group for group in app.registered_groups if group.name == name]
    return alone if alone.registered_commands or alone.registered_groups else app


def main() -> None:
    """Run the command line; every error raised on purpose is one line and an exit code."""
    from finseek.core.errors import FinseekError, Note

    show = warnings.showwarning

    def note(message: Warning | str, category: type[Warning], *place: Any, **named: Any) -> None:
        if issubclass(category, Note):
            print(f"finseek: note: {message}", file=sys.stderr)
        else:
            show(message, category, *place, **named)

    warnings.showwarning = note
    try:
        arguments = flags_first(sys.argv[1:])
        only(arguments)(arguments)
    except FinseekError as error:
        if "--debug" in sys.argv:
            raise
        print(f"finseek: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if "--debug" in sys.argv:
            raise
        place = error.filename or "standard output"
        print(
            f"finseek: {place}: {error.strerror or error}: check the path, its rights and the free space",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        print("finseek: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
