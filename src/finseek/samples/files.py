"""The samples of a run as files, and the tokenizer that belongs to them."""

from __future__ import annotations

from pathlib import Path

from finseek.core.progress import Progress, silent
from finseek.samples.options import PromptOptions
from finseek.samples.prompts import History, SnapshotText, iterate_built
from finseek.samples.records import iterate_samples, write_samples
from finseek.samples.tokenizer import train_tokenizer
from finseek.theses.records import iterate_theses
from finseek.theses.split_files import iterate_split

FILES = {"train": "training.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}


def write_sample_files(
    split: Path,
    theses: Path,
    folder: Path,
    snapshots: SnapshotText | None,
    options: PromptOptions,
    progress: Progress = silent,
) -> dict[str, int]:
    """Write ``training.jsonl``, ``validation.jsonl`` and ``test.jsonl``; a thesis at a time.

    Args:
        split: folder with the Parquet files of the split stage.
        theses: ``all.jsonl``, for the earlier actions of a ticker; read only where ``last_actions`` asks for them.
        folder: where the samples go.
        snapshots: the market, or None.
        options: what is shown.
        progress: told after each split.

    Returns:
        the number of samples by split.
    """
    history = History(iterate_theses(theses) if options.last_actions else ())
    counts = {}
    for done, (name, file) in enumerate(FILES.items(), 1):
        samples = iterate_built(
            iterate_split(split / f"{name}.parquet"), snapshots, options, split=name, history=history
        )
        counts[name] = write_samples(folder / file, samples)
        progress("samples", done, len(FILES), "splits")
    return counts


def train_split_tokenizer(samples: Path, folder: Path, options: PromptOptions) -> int:
    """Train the tokenizer on prompts and answers of ``training.jsonl`` alone; return its size."""
    texts = (text for sample in iterate_samples(samples) for text in (sample.input, sample.output))
    return train_tokenizer(texts, options.vocab_size, folder)
