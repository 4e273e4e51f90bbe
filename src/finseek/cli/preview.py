"""Samples on the terminal as the model sees them: prompt plain, action and answer coloured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finseek.pipeline import RunResult

STYLES = {0: "", 1: "bold green", 2: "cyan"}


def show_samples(result: RunResult, number: int, ticker: str | None) -> None:
    """Print the first samples of the training file with the role of each token.

    Raises:
        InputError: there is no sample of that ticker, or one does not fit ``train.seq_length``.
    """
    from itertools import islice

    from rich.console import Console
    from rich.text import Text

    from finseek.core.errors import InputError
    from finseek.samples import Encoder, iterate_samples
    from finseek.samples.preview import preview

    folder, seq_length = result.paths.samples, result.config.train.seq_length
    encoder = Encoder(folder / "tokenizer", result.config.prompt.template)
    wanted = (s for s in iterate_samples(folder / "training.jsonl") if ticker in (None, s.metadata.get("ticker")))
    samples = list(islice(wanted, number))
    if not samples:
        raise InputError(f"no training sample of ticker {ticker}: see theses/summary.json for the tickers")
    console = Console()
    for sample in samples:
        seen = preview(sample, encoder, seq_length)
        cut = f", the answer cut at train.seq_length {seq_length}" if seen.truncated else ""
        of = sample.metadata
        name = f"{of['ticker']} as of {of['as_of_date']}" if of else "an instruction"
        console.rule(f"{name}, {seen.tokens} tokens{cut}")
        console.print(Text.assemble(*((text, STYLES[role]) for role, text in seen.runs)))
    console.rule("plain: read; green: the action; cyan: the rest of the answer, learned too")
