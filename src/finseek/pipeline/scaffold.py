"""A new study: a commented config made from the options themselves, .env.example, and folders for data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from finseek.core.artifacts import write_text
from finseek.core.errors import InputError
from finseek.pipeline.config import Config, nested_model
from finseek.pipeline.overrides import ENVIRONMENT, SECRETS

CHOICES: dict[str, Any] = {
    "run.name": "study",
    "theses.source": "data/theses",
    "prices.source": "data/prices.parquet",
    "split.train_end": "2024-12-31",
    "split.test_start": "2025-01-01",
    "prompt.instruction": "",
    "prompt.last_actions": 5,
    "prompt.answer_order": ["action"],
    "prompt.vocab_size": 1024,
    "model.preset": "tiny",
    "train.epochs": 3,
    "train.seq_length": 256,
    "train.learning_rate": 0.002,
    "train.warmup_steps": 20,
    "train.threads": 1,
}
"""What a new study sets; every other key stands in the file as a comment with its default."""

HEAD = """\
# finseek run config.yaml
#
# Put theses into data/theses and daily prices into data/prices.parquet (columns date, ticker, open, high, low, close,
# adjusted_close, volume). Paths are relative to the folder in which the command is given. A key in a comment has its
# default; finseek schema prints all rules.
"""


def write_scaffold(folder: Path) -> list[Path]:
    """Write config.yaml, .env.example, data/theses/ and a .gitignore into a new or empty folder.

    Raises:
        InputError: if the folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder: name a new one")
    (folder / "data" / "theses").mkdir(parents=True)
    files = {
        "config.yaml": HEAD + "\n".join(_section_lines(Config, "", 0)) + "\n",
        ".env.example": _env_example(),
        ".gitignore": ".env\nruns/\n",
    }
    for name, text in files.items():
        write_text(folder / name, text)
    return [folder / name for name in files]


def _section_lines(model: type[BaseModel], prefix: str, depth: int) -> Iterator[str]:
    """Lines of YAML of one section: chosen keys as they are, the others as comments."""
    indent = "  " * depth
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        inner = nested_model(field.annotation)
        if inner is not None:
            mark = "" if any(choice.startswith(f"{key}.") for choice in CHOICES) else "# "
            yield "" if depth == 0 else f"{indent}# {field.description or ''}".rstrip()
            yield f"{indent}{mark}{name}:"
            yield from _section_lines(inner, f"{key}.", depth + 1)
            continue
        if field.description:
            yield f"{indent}# {field.description}"
        if key in CHOICES:
            yield f"{indent}{name}: {json.dumps(CHOICES[key])}"
        else:
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            yield f"{indent}# {name}: {json.dumps(to_jsonable_python(default), ensure_ascii=False)}"


def _env_example() -> str:
    lines = ["# Copy to .env. Secrets are recorded nowhere; each other variable overrides one config key."]
    lines += [f"{name}=" for name in SECRETS]
    lines += [f"# {name}=    # {key}" for name, key in ENVIRONMENT.items()]
    return "\n".join(lines) + "\n"
