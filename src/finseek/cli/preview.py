"""Samples on the terminal as the model sees them: prompt plain, action and answer coloured."""

from __future__ import annotations

from pathlib import Path

COLOURS = {0: "", 1: "bold green", 2: "cyan"}


def show_samples(samples: Path, number: int, ticker: str | None) -> None:
    """Print the first samples of the training file with the role of each token.

    Raises:
        InputError: if there is no sample of that ticker.
    """
    from itertools import islice

    from rich.console import Console
    from rich.text import Text

    from finseek.core.errors import InputError
    from finseek.samples import Encoder, iterate_samples

    encoder = Encoder(samples / "tokenizer")
    wanted = (s for s in iterate_samples(samples / "training.jsonl") if ticker in (None, s.metadata["ticker"]))
    console = Console()
    shown = 0
    for sample in islice(wanted, number):
        encoded = encoder.encode(sample)
        text = Text()
        for token, role in zip(encoded.input_ids.tolist(), encoded.role.tolist(), strict=True):
            text.append(encoder.decode([token]), COLOURS[role])
        console.rule(f"{sample.metadata['ticker']} as of {sample.metadata['as_of_date']}, {len(text)} characters")
        console.print(text)
        shown += 1
    console.rule("plain: read; green: the action; cyan: the rest of the answer, learned too")
    if not shown:
        raise InputError(f"no training sample of ticker {ticker}: see theses/summary.json for the tickers")
