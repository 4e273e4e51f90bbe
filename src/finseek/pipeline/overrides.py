"""Values that do not come from the config file: --set, .env and the environment."""

from __future__ import annotations

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
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip().removeprefix("export ").strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ConfigError(f"{path} line {number} is not NAME=value: mend or remove the line")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[name.strip()] = value
    return values


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def from_environment(environment: Mapping[str, str]) -> list[Override]:
    """The overrides that the environment asks for; an empty variable asks for nothing."""
    return [
        Override(key, _scalar(environment[name]), f"environment variable {name}")
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
        if not equals or "." not in key.strip("."):
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
