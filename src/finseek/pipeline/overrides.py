"""Values that do not come from the config file: --set, .env and the environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finseek.core.errors import ConfigError

ENVIRONMENT = {
    "RAW_XML_DIR": "theses.source",
    "JSONL_OUTPUT": "theses.jsonl_output",
    "HF_DATASET_DIR": "prompt.hf_dataset_dir",
    "NEMO_DATASET_DIR": "prompt.nemo_dataset_dir",
    "PRICE_CACHE_DIR": "prices.cache_dir",
    "TRAIN_END_DATE": "split.train_end",
    "TEST_START_DATE": "split.test_start",
    "VALIDATION_DAYS": "split.validation_days",
    "USE_WANDB": "tracking.wandb",
    "WANDB_PROJECT": "tracking.project",
}
SWITCH = {"1": True, "0": False, "true": True, "false": False, "yes": True, "no": False}
SECRETS = ("EODHD_API_KEY", "WANDB_API_KEY", "OPENAI_API_KEY")


@dataclass(frozen=True)
class Override:
    """One value that replaces what the config file says."""

    key: str
    value: Any
    origin: str


def read_dotenv(path: Path) -> dict[str, str]:
    """Read ``NAME=value`` lines; comments, blank lines, ``export`` and quotes are understood.

    Raises:
        ConfigError: on any other line. The line is not quoted, because it may hold a secret.
    """
    values: dict[str, str] = {}
    if not path.is_file():
        return values
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path} cannot be read as UTF-8 text: save it as such") from None
    for number, line in enumerate(lines, start=1):
        text = line.strip().removeprefix("export ").strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ConfigError(f"{path} line {number} is not NAME=value: mend or remove the line")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        else:
            value = value.partition(" #")[0].rstrip()
        values[name.strip()] = value
    return values


class PlainLoader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as everywhere but in YAML 1.1."""


PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _scalar(text: str) -> Any:
    """A text as YAML reads it; what YAML calls text, and what it would cut at a ``#``, stays as it was typed."""
    try:
        value = yaml.load(text, Loader=PlainLoader)
    except (yaml.YAMLError, ValueError):
        return text
    return text if isinstance(value, str) or " #" in text else value


def from_environment(environment: Mapping[str, str]) -> list[Override]:
    """The overrides that the environment asks for; an empty variable asks for nothing."""
    return [
        Override(key, SWITCH.get(environment[name].lower(), _scalar(environment[name])), f"environment variable {name}")
        if name == "USE_WANDB"
        else Override(key, _scalar(environment[name]), f"environment variable {name}")
        for name, key in ENVIRONMENT.items()
        if environment.get(name)
    ]


def from_arguments(assignments: Iterable[str]) -> list[Override]:
    """The overrides of ``--set section.key=value``; the value is read as YAML.

    Raises:
        ConfigError: if an assignment has no ``=`` or no section.
    """
    overrides = []
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or "." not in key or not all(key.split(".")):
            raise ConfigError(f"--set {assignment!r} is not section.key=value, as in --set train.max_steps=10")
        overrides.append(Override(key.strip(), _scalar(value), "--set"))
    return overrides


def apply_overrides(config: dict[str, Any], overrides: Iterable[Override]) -> dict[str, Any]:
    """A copy of a config tree with the overrides in their places; the last one wins."""
    result = {section: dict(part) if isinstance(part, dict) else part for section, part in config.items()}
    for override in overrides:
        *parents, leaf = override.key.split(".")
        here = result
        for parent in parents:
            inner = here.get(parent)
            if inner is not None and not isinstance(inner, dict):
                raise ConfigError(f"{override.origin} sets {override.key}, but {parent} is the value {inner!r}")
            here[parent] = dict(inner or {})
            here = here[parent]
        here[leaf] = override.value
    return result
