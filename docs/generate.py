"""Write the reference of the command line and of the config from the code, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import typer
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from finseek.cli.main import app
from finseek.pipeline.config import Config, nested_model
from finseek.pipeline.overrides import ENVIRONMENT, SECRETS

NOTE = "<!-- Made from the code at every build of the documentation. -->\n"


def write_reference(folder: Path) -> None:
    """Write ``cli.md`` and ``config.md`` into a folder."""
    root = typer.main.get_command(app)
    (folder / "cli.md").write_text(NOTE + "\n".join(_command_page(root)) + "\n", encoding="utf-8")
    (folder / "config.md").write_text(NOTE + "\n".join(_config_page()) + "\n", encoding="utf-8")


def commands(command: click.Command, name: str = "finseek") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its full name."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for word, inner in below.items():
        yield from commands(inner, f"{name} {word}")


def _command_page(root: click.Command) -> Iterator[str]:
    yield "# Command line\n"
    yield "Progress goes to standard error, results to standard output. Exit code 0: done; 1: the work failed;"
    yield "2: wrong usage or input; 130: interrupted. `finseek --install-completion` completes commands in a shell.\n"
    for name, command in commands(root):
        context = click.Context(command, info_name=name)
        yield f"## {name}\n"
        yield f"{_prose(command.help or '')}\n"
        pieces = " ".join(command.collect_usage_pieces(context))
        yield f"    {name} {pieces}\n"
        rows = [parameter.get_help_record(context) for parameter in command.get_params(context)]
        rows += [
            (parameter.make_metavar(context), getattr(parameter, "help", "") or "")
            for parameter in command.get_params(context)
            if isinstance(parameter, click.Argument)
        ]
        yield "| option | meaning |\n| --- | --- |"
        for row in filter(None, rows):
            yield f"| `{_cell(row[0])}` | {_cell(row[1])} |"
        yield ""


def _prose(text: str) -> str:
    head, mark, example = text.partition("Example: ")
    return f"{head.strip()}\n\n```console\n$ {' '.join(example.split())}\n```" if mark else text


def _config_page() -> Iterator[str]:
    yield "# Config\n"
    yield "One YAML file a run. An unknown key, a wrong type or an impossible combination is refused before any work."
    yield "Every key can be overridden with `--set section.key=value`. `finseek schema` prints the JSON schema.\n"
    for name, field in Config.model_fields.items():
        section = nested_model(field.annotation)
        assert section is not None
        yield f"## {name}\n"
        yield f"{' '.join((section.__doc__ or '').split())}\n"
        yield "| key | default | meaning |\n| --- | --- | --- |"
        yield from _rows(section, f"{name}.")
        yield ""
    yield "## Environment\n"
    yield "A `.env` file in the folder where the command is given, and the environment (stronger), may hold these.\n"
    yield "| variable | overrides |\n| --- | --- |"
    yield from (f"| `{variable}` | `{key}` |" for variable, key in ENVIRONMENT.items())
    yield from (f"| `{secret}` | nothing: a secret, recorded nowhere |" for secret in SECRETS)


def _rows(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        inner = nested_model(field.annotation)
        if inner is not None:
            yield from _rows(inner, f"{prefix}{name}.")
            continue
        default = (
            "required"
            if field.is_required()
            else json.dumps(to_jsonable_python(field.get_default(call_default_factory=True)), ensure_ascii=False)
        )
        yield f"| `{prefix}{name}` | `{_cell(default)}` | {_cell(field.description or '')} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
