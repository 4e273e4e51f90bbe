"""The documentation says what is so: its commands run, its names exist, and nothing is left out."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from pydantic import BaseModel

from finseek.cli.main import app
from finseek.pipeline.config import Config, nested_model, valid_keys
from finseek.pipeline.overrides import ENVIRONMENT, SECRETS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])
PAGES = [page for page in PAGES if "_build" not in page.parts and page.name not in ("cli.md", "config.md")]
GROUP = typer.main.get_command(app)


def commands(group: click.Command = GROUP, name: str = "") -> Iterator[tuple[str, click.Command]]:
    below = getattr(group, "commands", None)
    if below is None:
        yield name.strip(), group
    for word, inner in (below or {}).items():
        yield from commands(inner, f"{name} {word}")


def parse(line: str) -> None:
    """Parse a command line as typer would, without running it."""
    words = shlex.split(line)
    assert words.pop(0) == "finseek", line
    while words and words[0] in ("--quiet", "--verbose", "--debug"):
        words.pop(0)
    command, context = GROUP, click.Context(GROUP, info_name="finseek")
    while hasattr(command, "commands"):
        word = words.pop(0) if words else ""
        assert word in command.commands, f"{line}: no command {word!r}"
        command = command.commands[word]
        context = click.Context(command, info_name=word, parent=context)
    try:
        command.parse_args(context, words)
    except (click.UsageError, typer.BadParameter) as error:
        raise AssertionError(f"{line}: {error.format_message()}") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("typer", "click"):
            raise
        raise AssertionError(f"{line}: {error}") from None


def shown_commands(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^ *\$ (finseek .+)$|^    (finseek .+)$", text, re.M)
    lines = [console or indented for console, indented in found]
    if page.name == "README.md":  # its table of features; in the tables of other pages commands are named, not shown
        cells = re.findall(r"\| (`finseek [^|]+`) \|$", text, re.M)
        lines += re.findall(r"`(finseek [^`]+)`", "\n".join(cells))
    return [line.split("  #")[0].split(" && ")[0].rstrip() for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_can_be_parsed(page: Path) -> None:
    for line in shown_commands(page):
        parse(line)


def known_keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    for name in model.model_fields:
        yield f"{prefix}{name}"
        inner = nested_model(model.model_fields[name].annotation)
        if inner is not None:
            yield from known_keys(inner, f"{prefix}{name}.")


def test_every_right_hand_side_of_the_migration_exists() -> None:
    keys, sections = set(known_keys()), set(valid_keys(()))
    artifacts = (DOCS / "reference" / "artifacts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!---)(.+?) \| (.+) \|$", (DOCS / "migration.md").read_text(encoding="utf-8"), re.M)
    assert len(rows) > 80
    for theirs, ours in rows:
        for code in re.findall(r"`([^`]+)`", ours):
            if code.startswith("finseek "):
                parse(code)
                for name in re.findall(r"configs/\S+", code):
                    assert (ROOT / name).is_file(), f"{theirs}: {name} does not exist"
            elif code.endswith((".jsonl", ".csv", ".json", ".parquet", ".html")) or "/" in code:
                assert code.rpartition("/")[2] in artifacts, f"{theirs}: no run leaves {code}"
            elif code.partition(".")[0] in sections and " " not in code:
                assert code in keys, f"{theirs}: {code} is no key of the config"
    text = (DOCS / "migration.md").read_text(encoding="utf-8")
    assert all(f"`{variable}`" in text for variable in ENVIRONMENT)


def test_every_fault_names_a_test_that_exists() -> None:
    lines = [line for line in (DOCS / "faults.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [re.search(r"`([\w/]+\.py)(?:::(\w+))?` \|$", line) for line in lines[2:]]
    assert len(rows) >= 30
    for line, row in zip(lines[2:], rows, strict=True):
        assert row is not None, f"no test backs: {line}"
        text = (ROOT / "tests" / row[1]).read_text(encoding="utf-8")
        assert f"def {row[2]}(" in text if row[2] else "def test_" in text, f"{row[1]}::{row[2]}"


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=[name for name, _ in commands()])
def test_every_command_explains_itself_with_an_example(name: str, command: click.Command) -> None:
    text = command.help or ""
    assert len(text) > 20
    example = " ".join(text.partition("Example: ")[2].partition("\n\n")[0].split())
    assert example.startswith(f"finseek {name}"), f"finseek {name} has no example"
    parse(example)
    assert all(getattr(parameter, "help", None) for parameter in command.params), f"finseek {name}: bare option"


def test_every_group_of_commands_has_an_example() -> None:
    groups = {name: command for name, command in GROUP.commands.items() if hasattr(command, "commands")}
    assert len(groups) >= 7
    assert str(GROUP.epilog).startswith("Example: finseek demo.")
    for name, group in groups.items():
        example = str(group.epilog).removeprefix("Example: ")
        assert example.startswith(f"finseek {name} ")
        parse(example)


def test_every_key_of_the_config_explains_itself() -> None:
    def bare(model: type[BaseModel], prefix: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            inner = nested_model(field.annotation)
            if inner is not None:
                yield from bare(inner, f"{prefix}{name}.")
            elif not field.description:
                yield f"{prefix}{name}"

    assert list(bare(Config, "")) == []


def test_every_secret_and_variable_is_documented() -> None:
    text = (DOCS / "generate.py").read_text(encoding="utf-8")
    assert "ENVIRONMENT.items()" in text
    assert "in SECRETS" in text
    assert len(SECRETS) >= 3


def test_the_tutorial_runs(tmp_path: Path) -> None:
    """Every command of the tutorial, in its order, in one empty folder."""
    folder = tmp_path
    for line in shown_commands(DOCS / "tutorial.md"):
        words = [sys.executable, "-m", "finseek.cli.main", *shlex.split(line)[1:]]
        done = subprocess.run(words, cwd=folder, env=os.environ, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        if line.startswith("finseek init "):
            folder = folder / line.split()[-1]
