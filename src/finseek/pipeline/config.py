"""The config of a run: the parts of the packages, assembled and checked against each other."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as field_of
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import orjson
import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from finseek.audit.options import AuditOptions
from finseek.backtest.options import BacktestOptions
from finseek.core.errors import ConfigError
from finseek.core.options import Options
from finseek.evaluate.options import EvaluateOptions
from finseek.market.options import LabelRule, PricesOptions, SnapshotOptions
from finseek.pipeline.overrides import SECRETS, Override, PlainLoader, apply_overrides, from_arguments, from_environment
from finseek.report.options import ReportOptions
from finseek.samples.instruct_convert import InstructOptions
from finseek.samples.options import PromptOptions
from finseek.theses.options import SplitOptions, ThesesOptions
from finseek.train.options import ModelOptions, ParallelOptions, TrackingOptions, TrainOptions

Part = TypeVar("Part", bound=Options)


class RunOptions(Options):
    """Name, seed and place of a run."""

    name: str = Field("run", pattern=r"^[\w][\w.-]*$", description="name of the run and of its folder")
    seed: int = Field(0, ge=0, description="seed of everything random in the run")
    output_dir: Path = Field(Path("runs"), description="folder that holds the run folders")


class ThesesSection(ThesesOptions):
    """Where the theses come from, and an optional second place for all.jsonl."""

    jsonl_output: Path | None = Field(None, description="also copy all.jsonl to this file")


class SplitSection(SplitOptions):
    """Where time is cut, and what is learned: the actions of the theses or what the market did."""

    realised: LabelRule | None = Field(
        None,
        description="learn the action that the return over label_horizon sessions would have called for, instead of"
        " the thesis's own; {} takes the defaults",
    )

    @model_validator(mode="after")
    def _horizon(self) -> Self:
        if self.realised and self.label_horizon < 1:
            raise ValueError("label_horizon 0 leaves no session for a realised return: set it to 1 or more")
        if self.realised and not self.purge:
            raise ValueError("purge false would let realised labels reach into later splits: set it to true")
        return self


class PromptSection(PromptOptions):
    """What the model reads and answers: the prompt, its market snapshot, its exports."""

    snapshot: SnapshotOptions = Field(default_factory=SnapshotOptions, description="the numbers of the prompt")
    nemo_dataset_dir: Path | None = Field(None, description="also copy the samples to this folder as NeMo JSONL")
    hf_dataset_dir: Path | None = Field(None, description="also write a Hugging Face dataset to this folder")
    max_samples: int | None = Field(None, ge=1, description="at most so many samples of each split, spread evenly")
    mix_with: Path | None = Field(
        None, description="instruction samples (input, output) to mix into the training split"
    )
    mix_share: float = Field(0.2, gt=0, lt=1, description="share of them among the training samples")


class InstructSection(InstructOptions):
    """Instruction data of a run without theses, prices and backtest."""

    source: str = Field(description="Parquet, JSON-lines or CSV file, a folder of them, or hub:owner/name")
    format: Literal["messages"] = Field("messages", description="conversations; a run reads no other")
    test_fraction: float = Field(0.05, gt=0, lt=1, description="share of the prompts in the test that evaluates")
    validation_fraction: float = Field(0.05, gt=0, lt=1, description="share of the prompts in validation")
    max_tokens: int | None = Field(
        None, ge=8, description="a conversation whose first answer begins later is rejected; at most train.seq_length"
    )


class Config(Options):
    """Everything that decides a run."""

    run: RunOptions = Field(default_factory=RunOptions)
    theses: ThesesSection = Field(default_factory=ThesesSection)
    prices: PricesOptions = Field(default_factory=PricesOptions)
    split: SplitSection | None = None
    instruct: InstructSection | None = None
    prompt: PromptSection = Field(default_factory=PromptSection)
    model: ModelOptions | None = None
    train: TrainOptions = Field(default_factory=TrainOptions)
    parallel: ParallelOptions = Field(default_factory=ParallelOptions)
    evaluate: EvaluateOptions = Field(default_factory=EvaluateOptions)
    backtest: BacktestOptions = Field(default_factory=BacktestOptions)
    audit: AuditOptions = Field(default_factory=AuditOptions)
    report: ReportOptions = Field(default_factory=ReportOptions)
    tracking: TrackingOptions = Field(default_factory=TrackingOptions)

    @model_validator(mode="after")
    def _one_kind_of_data(self) -> Self:
        if self.instruct is None:
            return self
        if self.theses.source is not None:
            raise ValueError(
                "instruct and theses.source are two kinds of runs: keep one, or mix instruction samples into the theses"
                " with prompt.mix_with"
            )
        if self.instruct.max_tokens is not None and self.instruct.max_tokens > self.train.seq_length:
            raise ValueError(
                f"instruct.max_tokens {self.instruct.max_tokens} exceeds train.seq_length {self.train.seq_length}:"
                " an answer that begins behind it would not be learned"
            )
        if self.evaluate.backend == "openai":
            raise ValueError("evaluate.backend openai gives no probabilities of answers: take another for instruct")
        return self

    @model_validator(mode="after")
    def _realised_labels(self) -> Self:
        if self.split is None or self.split.realised is None:
            return self
        if not (self.prices.source or self.prices.provider):
            raise ValueError("split.realised takes the labels from prices: set prices.source or prices.provider")
        if self.split.realised.excess and not self.prices.benchmark:
            raise ValueError("split.realised.excess is over a benchmark: set prices.benchmark")
        if self.prompt.answer_order != ("action",):
            raise ValueError(
                "split.realised contradicts reasoning and support, which argue for the thesis's own action: set"
                " prompt.answer_order to [action]"
            )
        return self

    @property
    def tokenizer(self) -> Path | None:
        """Folder of the tokenizer: the one named, else the checkpoint's own; None where one is trained."""
        if self.prompt.tokenizer:
            return Path(self.prompt.tokenizer)
        return self.model.path if self.model else None

    def part(self, section: str) -> Any:
        """One section, or one key of it (``prompt.template``), as JSON-able data; None where it is absent."""
        name, _, key = section.partition(".")
        value = getattr(self, name)
        found = None if value is None else value.model_dump(mode="json")
        return found[key] if found and key else found

    def to_json(self) -> dict[str, Any]:
        """The whole config as JSON-able data."""
        return self.model_dump(mode="json")


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
    secrets: Mapping[str, str] = field_of(default_factory=dict, repr=False)


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


def valid_keys(location: Iterable[str | int], root: type[BaseModel] = Config) -> Iterator[str]:
    """Names of the keys at a place in the config."""
    model: type[BaseModel] | None = root
    for step in location:
        field = model.model_fields.get(str(step)) if model else None
        model = nested_model(field.annotation) if field else None
    yield from model.model_fields if model else ()


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The options class that a field holds, if it holds one."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = nested_model(field.annotation)
        if inner:
            yield from _all_keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def json_schema() -> dict[str, Any]:
    """JSON schema of the config."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
