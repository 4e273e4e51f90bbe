"""From a YAML file and overrides to a checked config, or one line that says what is wrong with it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import orjson
import yaml
from pydantic import BaseModel, ValidationError

from finseek.core.errors import ConfigError
from finseek.core.options import Options
from finseek.pipeline.config import Config, nested_model, valid_keys
from finseek.pipeline.overrides import SECRETS, Override, PlainLoader, apply_overrides, from_arguments, from_environment

Part = TypeVar("Part", bound=Options)


@dataclass(frozen=True)
class LoadedConfig:
    """A config and where it came from.

    Attributes:
        config: checked as a whole.
        source: the YAML file; None where there is none.
        overrides: what replaced its values.
        secrets: keys of services by the name of their variable; in no file, hash or message.
    """

    config: Config
    source: Path | None
    overrides: tuple[Override, ...]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


class _UniqueKeyLoader(PlainLoader):
    """YAML without silently repeated keys."""


def _mapping_of_unique_keys(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            raise ConfigError(
                f"line {key_node.start_mark.line + 1} merges with <<, which is not read: write the keys out"
            )
        key = loader.construct_object(key_node)
        if not isinstance(key, str | int | float | bool):
            raise ConfigError(f"line {key_node.start_mark.line + 1} has a list or a mapping as a key: use a name")
        line = key_node.start_mark.line + 1
        if key in seen:
            raise ConfigError(f"key {key!r} stands on line {seen[key]} and again on line {line}: keep one of them")
        seen[key] = line
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_of_unique_keys)


def load_config(
    path: Path | None, assignments: Iterable[str] = (), environment: Mapping[str, str] | None = None
) -> LoadedConfig:
    """Read, override and validate a config as a whole.

    Args:
        path: YAML file; None stands for an empty one.
        assignments: ``section.key=value`` texts, strongest.
        environment: variables that may override keys (none by default: the caller decides what is read).

    Raises:
        ConfigError: on one line, with key, value, rule and remedy.
    """
    tree = _read_yaml(path) if path else {}
    overrides = (*from_environment(environment or {}), *from_arguments(assignments))
    secrets = {name: environment[name] for name in SECRETS if name in environment} if environment else {}
    return LoadedConfig(validate_config(apply_overrides(tree, overrides)), path, overrides, secrets)


SMOKE = (
    Override("train.max_steps", 10, "--smoke"),
    Override("train.log_every_n_steps", 1, "--smoke"),
    Override("prompt.max_samples", 40, "--smoke"),
    Override("evaluate.bootstrap_resamples", 200, "--smoke"),
)


def smoke_test(loaded: LoadedConfig) -> LoadedConfig:
    """The same config cut to ten steps and few rows, in a run folder of its own."""
    name = Override("run.name", f"{loaded.config.run.name}-smoke", "--smoke")
    asked_for = {override.key for override in loaded.overrides if override.origin == "--set"}
    cuts = tuple(override for override in (*SMOKE, name) if override.key not in asked_for)
    tree = apply_overrides(loaded.config.model_dump(mode="json"), cuts)
    return replace(loaded, config=validate_config(tree), overrides=(*loaded.overrides, *cuts))


def validate_config(tree: Mapping[str, Any]) -> Config:
    """Build the config from plain data, or say the first thing that is wrong with it."""
    for key, value in _leaves(tree):
        if isinstance(value, float) and not isfinite(value):
            raise ConfigError(f"config key {key} is {value}: give a finite number")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ConfigError(f"config key {key} is {value}: give a number of at most 63 bits")
    try:
        document = orjson.dumps(tree, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise ConfigError(f"the config holds a value that is no text, number, date or list ({error})") from None
    try:
        return Config.model_validate_json(document)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            yield from _leaves(value, f"{prefix}.{place}")
    else:
        yield prefix, tree


def validate_part(section: str, model: type[Part], assignments: Iterable[str]) -> Part:
    """Options that are no part of a run's config, from ``section.key=value`` texts alone."""
    overrides = from_arguments(assignments)
    for override in overrides:
        if not override.key.startswith(f"{section}."):
            raise ConfigError(f"--set {override.key} is no key of this command; its keys begin with {section}.")
    tree = apply_overrides({section: {}}, overrides)[section]
    try:
        return model.model_validate_json(orjson.dumps(tree, option=orjson.OPT_NON_STR_KEYS))
    except ValidationError as error:
        raise ConfigError(_explain(error, model, f"{section}.")) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"config {path} does not exist: give a file, or make one with `finseek init DIR`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read as UTF-8 text ({error})") from None
    try:
        tree = yaml.load(text, Loader=_UniqueKeyLoader)
    except ConfigError as error:
        raise ConfigError(f"config {path}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"config {path} is no valid YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"config {path} holds a {type(tree).__name__}; it must hold sections such as `theses:`")
    return {str(key): _without_empty_parts(value) for key, value in tree.items() if value is not None}


def _without_empty_parts(section: Any) -> Any:
    """A section without nested parts that hold nothing: ``snapshot:`` alone on its line means the defaults."""
    if not isinstance(section, dict):
        return section
    return {key: value for key, value in section.items() if value is not None or not _is_part(str(key))}


def _is_part(key: str) -> bool:
    fields = (field for model in map(nested_model, (f.annotation for f in Config.model_fields.values())) if model
              for name, field in model.model_fields.items() if name == key)  # fmt: skip
    return any(nested_model(field.annotation) for field in fields)


def _explain(error: ValidationError, root: type[BaseModel] = Config, prefix: str = "") -> str:
    """The first problem on one line: key, value, rule, nearest valid key."""
    problems = error.errors(include_url=False)
    first = problems[0]
    key = (prefix + ".".join(str(step) for step in first["loc"])).removesuffix(".")
    more = f" ({len(problems) - 1} more problems in the config)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        valid = list(valid_keys(first["loc"][:-1], root))
        near = difflib.get_close_matches(str(first["loc"][-1]), valid, n=1, cutoff=0.5)
        elsewhere = [full for full in _all_keys(root) if full.split(".")[-1] == first["loc"][-1]]
        hint = (near or elsewhere or [f"one of {', '.join(valid)}"])[0]
        return f"config key {key} is unknown; the nearest valid key is {hint}{more}"
    if first["type"] == "missing":
        return f"config key {key} is missing and has no default: add it{more}"
    message = first["msg"].removeprefix("Value error, ")
    return f"config key {key} is {json.dumps(first['input'], default=str)[:80]}: {message}{more}"


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, option in model.model_fields.items():
        inner = nested_model(option.annotation)
        if inner:
            yield from _all_keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
