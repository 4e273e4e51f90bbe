"""The config of a run: the parts of the packages, assembled and checked against each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from finseek.audit.options import AuditOptions
from finseek.backtest.options import BacktestOptions
from finseek.core.options import Options
from finseek.evaluate.options import EvaluateOptions
from finseek.market.options import LabelRule, PricesOptions, SnapshotOptions
from finseek.report.options import ReportOptions
from finseek.samples.instruct_convert import InstructOptions
from finseek.samples.options import PromptOptions
from finseek.theses.options import SplitOptions, ThesesOptions
from finseek.train.options import ModelOptions, ParallelOptions, TrackingOptions, TrainOptions


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


def json_schema() -> dict[str, Any]:
    """JSON schema of the config."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


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
