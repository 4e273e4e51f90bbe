"""The stages of a run as a table: what each reads, what decides it, what it writes, and the function that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from finseek.core.errors import ConfigError, MissingPart
from finseek.core.progress import Progress
from finseek.pipeline.config import Config
from finseek.pipeline.paths import RunPaths
from finseek.samples.instruct_convert import HUB
from finseek.samples.tokenizer import TOKENIZER_FILES
from finseek.train.job import Node


@dataclass(frozen=True)
class StageContext:
    """What a stage function gets.

    Attributes:
        config: the whole config.
        paths: where artifacts lie.
        key: the key under which the outputs will be valid.
        present: earlier stages whose outputs may be read; what else lies in the folder belongs to another config.
        sources: the files from outside the run folder that the stage reads, by name: ``{path, sha256, bytes}``.
        progress: told where long work stands.
        node: this machine, where several train one model.
        secrets: keys of services, by the name of their variable.
    """

    config: Config
    paths: RunPaths
    key: str
    present: frozenset[str]
    sources: Mapping[str, Mapping[str, Any]]
    progress: Progress
    node: Node = field(default_factory=Node)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


def _nothing(config: Config) -> dict[str, Path]:
    return {}


def _no_copies(config: Config) -> list[Path]:
    return []


def _always(config: Config) -> str:
    return ""


def _no_rule(config: Config) -> None:
    pass


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: as in ``--from``, ``--until``, ``--skip``.
        work: ``module:function`` below this package, imported when the stage runs; returns counts.
        on_instructions: the same where the config learns from instruction data alone; empty where nothing differs.
        sections: parts of the config, or single keys, that decide its outputs.
        needs: earlier stages whose outputs it reads.
        code: sub-packages whose source decides its outputs.
        outputs: files and folders below the run folder that it writes.
        optional: those that it writes in some runs alone.
        sources: files or folders outside the run that it reads, by label.
        copies: files or folders elsewhere that it writes too; it runs again where one is gone.
        tolerant: it makes do without a stage that it needs.
        absent: the reason why a config leaves this stage out; empty where it does not.
        check: raises ConfigError where the config cannot serve this stage; called before any stage runs.
    """

    name: str
    work: str
    sections: tuple[str, ...]
    needs: tuple[str, ...]
    code: tuple[str, ...]
    outputs: tuple[str, ...]
    optional: tuple[str, ...] = ()
    sources: Callable[[Config], Mapping[str, Path]] = _nothing
    copies: Callable[[Config], list[Path]] = _no_copies
    tolerant: bool = False
    absent: Callable[[Config], str] = _always
    check: Callable[[Config], None] = _no_rule
    on_instructions: str = ""

    def run(self, context: StageContext) -> dict[str, Any]:
        """Do the work and return its counts."""
        from importlib import import_module

        work = self.on_instructions if context.config.instruct else self.work
        module, function = (work or self.work).split(":")
        counts: dict[str, Any] = getattr(import_module(f"finseek.pipeline.{module}"), function)(context)
        return counts


def _thesis_source(config: Config) -> dict[str, Path]:
    return {"theses.source": config.theses.source} if config.theses.source else {}


def _price_source(config: Config) -> dict[str, Path]:
    if config.prices.source:
        return {"prices.source": config.prices.source}
    return {"prices.cache_dir": config.prices.cache_dir} if config.prices.provider else {}


def _model_source(config: Config) -> dict[str, Path]:
    return {"model.path": config.model.path} if config.model and config.model.path else {}


def _base_source(config: Config) -> dict[str, Path]:
    return _model_source(config) if "base" in config.evaluate.baselines else {}


def _without_model(config: Config) -> str:
    served = config.model is None and config.evaluate.backend == "openai"
    return "the config names no model, the answers come from a server" if served else ""


def _sample_sources(config: Config) -> dict[str, Path]:
    named = {"prompt.mix_with": config.prompt.mix_with} if config.prompt.mix_with else {}
    if config.instruct and not config.instruct.source.startswith(HUB):
        named["instruct.source"] = Path(config.instruct.source)
    if config.tokenizer:
        first, *others = (config.tokenizer / name for name in TOKENIZER_FILES)
        named["prompt.tokenizer"] = first
        named |= {f"prompt.tokenizer.{file.stem}": file for file in others if file.is_file()}
    return named


def _thesis_copies(config: Config) -> list[Path]:
    return [config.theses.jsonl_output] if config.theses.jsonl_output else []


def _sample_copies(config: Config) -> list[Path]:
    return [path for path in (config.prompt.nemo_dataset_dir, config.prompt.hf_dataset_dir) if path]


def _all_sources(config: Config) -> dict[str, Path]:
    """What the report names: the sources of every stage that the config does not leave out, and its own."""
    stages = [stage for stage in STAGES if stage.sources is not _all_sources and not stage.absent(config)]
    planted = {"report.planted": config.report.planted} if config.report.planted else {}
    return {label: path for stage in stages for label, path in stage.sources(config).items()} | planted


def _instructions_alone(config: Config) -> str:
    return "the config learns from instruction data alone (instruct.source)" if config.instruct else ""


def _without_prices(config: Config) -> str:
    if config.instruct:
        return _instructions_alone(config)
    named = config.prices.source or config.prices.provider
    return "" if named else "the config names no prices (prices.source or prices.provider)"


def _needs_theses(config: Config) -> None:
    if config.theses.source is None:
        raise ConfigError("config key theses.source is missing: name a folder, file or archive of theses")


def _needs_split(config: Config) -> None:
    if config.split is None:
        raise ConfigError("config section split is missing: give split.train_end and split.test_start as dates")


def _needs_model(config: Config) -> None:
    if config.model is None:
        raise ConfigError("config section model is missing: give model.preset (random weights) or model.path")
    if find_spec("torch") is None:
        raise MissingPart("torch", "train", f"train.engine {config.train.engine}")


def _needs_answerer(config: Config) -> None:
    """Before hours of training: what is asked afterwards has an address, or a device that is here."""
    server = config.evaluate.openai
    if config.evaluate.backend == "openai":
        if not (server.model and (server.base_url or "").startswith(("http://", "https://"))):
            raise ConfigError(
                f"evaluate.backend openai asks model {server.model!r} at {server.base_url!r}: set evaluate.openai.model"
                " and evaluate.openai.base_url to an address that begins with http:// or https://"
            )
    elif config.evaluate.device != "cpu" and find_spec("torch"):
        from finseek.evaluate.backends.local import check_device

        check_device(config.evaluate.device)


def check_model(config: Config) -> None:
    """Refuse an architecture that cannot be built, before any work.

    Raises:
        ConfigError: an unknown preset, an unknown or impossible field.
    """
    if config.model is None or config.model.preset is None:
        return
    from finseek.model import DeepSeekConfig

    fields = DeepSeekConfig.__dataclass_fields__
    for name in config.model.overrides:
        if name not in fields:
            near = get_close_matches(name, fields, n=1)
            hint = f"; the nearest valid key is {near[0]}" if near else ""
            raise ConfigError(f"config key model.overrides.{name} is no field of the architecture{hint}")
    try:
        DeepSeekConfig.preset(config.model.preset, **config.model.overrides)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"config section model describes no model that can be built: {error}") from None


ASKING = ("template", "answer_order", "ticker", "last_actions", "snapshot")
"""Keys of the prompt that decide how a model is asked and its baselines are fitted, whatever the samples are."""

DATA_CODE = ("core", "theses", "market", "samples", "pipeline")

STAGES: tuple[Stage, ...] = (
    Stage(
        name="theses",
        work="data:read_the_theses",
        sections=("theses",),
        needs=(),
        code=("core", "theses"),
        outputs=("theses/all.jsonl", "theses/rejects.jsonl", "theses/summary.json"),
        sources=_thesis_source,
        copies=_thesis_copies,
        absent=_instructions_alone,
        check=_needs_theses,
    ),
    Stage(
        name="prices",
        work="data:load_the_prices",
        sections=("prices",),
        needs=("theses",),
        code=("core", "market"),
        outputs=("prices/prices.parquet", "prices/summary.json"),
        sources=_price_source,
        absent=_without_prices,
    ),
    Stage(
        name="split",
        work="data:split_in_time",
        sections=("split",),
        needs=("theses", "prices"),
        code=("core", "theses", "market"),
        outputs=(
            "split/train.parquet",
            "split/validation.parquet",
            "split/test.parquet",
            "split/dropped.jsonl",
            "split/certificate.json",
        ),
        absent=_instructions_alone,
        check=_needs_split,
    ),
    Stage(
        name="samples",
        work="data:build_the_samples",
        sections=("prompt", "instruct"),
        needs=("theses", "prices", "split"),
        code=DATA_CODE,
        outputs=("samples",),
        sources=_sample_sources,
        copies=_sample_copies,
        on_instructions="instruction:convert_the_instructions",
    ),
    Stage(
        name="train",
        work="learning:train_the_model",
        sections=("model", "train", "parallel", "tracking", "prompt.template"),
        needs=("samples",),
        code=("core", "samples", "model", "checkpoint", "train"),
        outputs=("train/checkpoint", "train/train_log.jsonl", "train/seeds"),
        sources=_model_source,
        absent=_without_model,
        check=_needs_model,
    ),
    Stage(
        name="evaluate",
        work="evaluating:evaluate_the_model",
        sections=("evaluate", *(f"prompt.{key}" for key in ASKING)),
        needs=("theses", "prices", "split", "samples", "train"),
        sources=_base_source,
        code=("core", "stats", "theses", "market", "samples", "model", "evaluate", "pipeline"),
        outputs=("evaluate/eval_results.csv", "evaluate/metrics.json"),
        check=_needs_answerer,
        on_instructions="instruction:evaluate_the_instructions",
    ),
    Stage(
        name="backtest",
        work="judging:backtest_the_answers",
        sections=("backtest",),
        needs=("prices", "split", "evaluate"),
        code=("core", "stats", "market", "backtest", "pipeline"),
        outputs=(
            *(f"backtest/{name}.csv" for name in ("equity", "trades", "ledger", "fills", "rejected", "unexecuted")),
            "backtest/metrics.json",
        ),
        absent=_without_prices,
    ),
    Stage(
        name="audit",
        work="auditing:audit_the_run",
        sections=("audit", "theses", "model", "evaluate"),
        needs=("prices", "split", "evaluate"),
        code=("core", "stats", "theses", "market", "evaluate", "audit", "pipeline"),
        outputs=("audit/leaks.json", "audit/hindsight.jsonl", "audit/contamination.json"),
        absent=_instructions_alone,
    ),
    Stage(
        name="report",
        work="judging:write_the_report",
        sections=(
            "run",
            "theses",
            "prices",
            "split",
            "prompt",
            "instruct",
            "model",
            "train",
            "evaluate",
            "backtest",
            "audit",
            "report",
        ),
        needs=("theses", "prices", "split", "samples", "train", "evaluate", "backtest", "audit"),
        code=("core", "report", "pipeline"),
        outputs=("report.html", "report.json", "report.schema.json"),
        optional=("train/README.md",),  # the model card, where a model was trained
        sources=_all_sources,
        tolerant=True,
    ),
)
