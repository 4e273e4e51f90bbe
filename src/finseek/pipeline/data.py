"""The stages that make samples: theses, prices, split, samples."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from finseek.core.artifacts import atomic_folder, read_json, write_bytes, write_json, write_lines
from finseek.core.errors import ArtifactError, InputError
from finseek.pipeline.paths import RunPaths
from finseek.pipeline.stages import StageContext
from finseek.samples.tokenizer import TOKENIZER_FILES

if TYPE_CHECKING:
    from finseek.core.actions import Action
    from finseek.market import Prices
    from finseek.pipeline.config import SplitSection
    from finseek.theses.split_files import Label

T = TypeVar("T")
SAMPLE_FILES = {"train": "training", "validation": "validation", "test": "test"}


def read_the_theses(context: StageContext) -> dict[str, Any]:
    """Stage ``theses``: a source to all.jsonl, rejects.jsonl, summary.json."""
    from finseek.theses import parse_theses

    options = context.config.theses
    assert options.source is not None
    summary = parse_theses(options.source, context.paths.theses, options, context.progress)
    if summary["kept"] + summary["rejected"] != summary["found"]:
        raise ArtifactError(f"theses do not reconcile: {summary['found']} found, {summary['kept']} kept")
    if options.jsonl_output:
        write_bytes(options.jsonl_output, (context.paths.theses / "all.jsonl").read_bytes())
    return {name: summary[name] for name in ("found", "kept", "rejected")}


def load_the_prices(context: StageContext) -> dict[str, Any]:
    """Stage ``prices``: the price table of the theses' tickers, as the run will use it."""
    from finseek.market import describe_prices, load_prices, write_prices
    from finseek.market.fetch import load_fetched

    options = context.config.prices
    tickers = sorted(read_json(context.paths.theses / "summary.json")["tickers"])
    prices = load_prices(options.source, options, tickers) if options.source else load_fetched(options, tickers)
    write_prices(prices, context.paths.prices / "prices.parquet")
    summary = describe_prices(prices)
    write_json(context.paths.prices / "summary.json", summary)
    return {"tickers": len(prices.tickers), "sessions": len(prices.sessions)}


def split_in_time(context: StageContext) -> dict[str, Any]:
    """Stage ``split``: three Parquet files and the certificate that their labels do not overlap."""
    from finseek.theses import write_split

    options = context.config.split
    assert options is not None
    prices = run_prices(context)
    sessions = prices.sessions if prices else None
    label = _realised(prices, options) if options.realised else None
    certificate = write_split(context.paths.theses / "all.jsonl", context.paths.split, sessions, options, label)
    if sum(certificate["kept"].values()) + sum(certificate["dropped"].values()) != certificate["found"]:
        raise ArtifactError(f"the split does not reconcile: {certificate['found']} found, {certificate['kept']} kept")
    return {**certificate["kept"], **certificate["dropped"]}


def _realised(prices: Prices, options: SplitSection) -> Label:
    """The action that the market would have rewarded; None where it cannot be known."""
    from finseek.market import LabelOptions, realised_labels

    assert options.realised is not None
    labels = realised_labels(prices, LabelOptions(horizon=options.label_horizon, **options.realised.model_dump()))

    def label(ticker: str, day: date) -> Action | None:
        return labels.action(ticker, day) if prices.sessions.index([day])[0] >= 0 else None

    return label


def build_the_samples(context: StageContext) -> dict[str, Any]:
    """Stage ``samples``: chat samples of each split, and the tokenizer, trained on the training split alone."""
    from finseek.samples import train_split_tokenizer, write_sample_files
    from finseek.samples.export import export_samples

    prompt, paths, seed = context.config.prompt, context.paths, context.config.run.seed
    market = None
    if prices := run_prices(context):
        from finseek.market import snapshots

        market = snapshots(prices, prompt.snapshot)
    counts: dict[str, Any] = dict(
        write_sample_files(paths.split, paths.theses / "all.jsonl", paths.samples, market, prompt, context.progress)
    )
    if prompt.max_samples:
        counts = {split: keep_evenly(samples_of(paths, split), prompt.max_samples) for split in counts}
    if prompt.mix_with:
        counts["mixed_in"] = mix_in(prompt.mix_with, samples_of(paths, "train"), prompt.mix_share, seed)
    if context.config.tokenizer:
        copy_tokenizer(context.config.tokenizer, paths.samples / "tokenizer")
    else:
        counts["words_in_vocabulary"] = train_split_tokenizer(
            paths.samples / "training.jsonl", paths.samples / "tokenizer", prompt
        )
    for form, folder in (("nemo", prompt.nemo_dataset_dir), ("huggingface", prompt.hf_dataset_dir)):
        if folder:
            export_samples(paths.samples, folder, form)
    return counts


def mix_in(instructions: Path, training: Path, share: float, seed: int) -> int:
    """Shuffle instruction samples among the training samples, of which none is lost; return how many came in.

    Raises:
        InputError: a line is no sample, or there are too few for the share.
    """
    from finseek.samples import iterate_samples
    from finseek.samples.mix import mix_files

    try:
        there = sum(1 for _ in iterate_samples(instructions))
    except ArtifactError as error:
        raise InputError(
            f"prompt.mix_with: {error}; make it with finseek instruct convert --set instruct.format=samples"
        ) from error
    theses = sum(1 for _ in iterate_samples(training))
    wanted = int(theses * share / (1 - share))
    if there < wanted:
        raise InputError(
            f"prompt.mix_with {instructions} holds {there} samples, prompt.mix_share {share} beside {theses} theses "
            f"takes {wanted}: lower the share"
        )
    counts = mix_files({training: 1 - share, instructions: share}, training, seed=seed)
    return counts[str(instructions)]["taken"]


def keep_evenly(path: Path, count: int) -> int:
    """Cut a file to at most ``count`` of its lines, evenly over their order; return how many remain."""
    with path.open("rb") as lines:
        kept = spread([line.rstrip(b"\n") for line in lines], count)
    return write_lines(path, kept)


def spread(rows: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of the rows, evenly over their order."""
    if len(rows) <= count:
        return list(rows)
    return [rows[place * len(rows) // count] for place in range(count)]


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the files of a tokenizer, not the weights that may lie beside it.

    Raises:
        InputError: if there is no tokenizer.json.
    """
    if not (source / "tokenizer.json").is_file():
        raise InputError(f"prompt.tokenizer {source} holds no tokenizer.json: name the folder of a tokenizer")
    with atomic_folder(target) as partial:
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, partial / name)


def run_prices(context: StageContext) -> Any:
    """The price table of the run; None in a run without prices."""
    if "prices" not in context.present:
        return None
    from finseek.market import PricesOptions, load_prices

    file = context.paths.prices / "prices.parquet"
    return load_prices(file, PricesOptions(benchmark=context.config.prices.benchmark))


def samples_of(paths: RunPaths, split: str) -> Path:
    """The sample file of a split."""
    return paths.samples / f"{SAMPLE_FILES[split]}.jsonl"
