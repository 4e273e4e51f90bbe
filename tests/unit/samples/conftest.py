"""A small corpus of theses with a tokenizer trained on it."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from finseek.core.actions import ACTIONS
from finseek.samples import PromptOptions, Sample, build_samples, train_tokenizer
from finseek.theses import Thesis, thesis_uid

START = date(2024, 1, 1)


class Market:
    """A snapshot whose words depend on ticker and date alone."""

    def text(self, ticker: str, as_of_date: date) -> str:
        day = as_of_date.toordinal()
        return " ".join(f"f{i}=b{(day * (i + 3) + len(ticker) + i) % 16}" for i in range(6))


@pytest.fixture(scope="session")
def theses() -> list[Thesis]:
    made = []
    for ticker in ("AAA", "BRK.B"):
        for n in range(60):
            day = START + timedelta(days=n)
            reasoning = f"{ticker} rose {n} % – “firm” & <5; naïve café 日本 on {day}.\nIt closed (again)."
            action = ACTIONS[(n * 7) % 5]
            made.append(
                Thesis(thesis_uid(ticker, day), ticker, day, reasoning, f"1. Volume {n}\n2. RSI", action,
                       {"rsi": str(n), "vix": "12"}, None, None, None, "f.xml", n)
            )  # fmt: skip
    return made


@pytest.fixture(scope="session")
def market() -> Market:
    return Market()


@pytest.fixture(scope="session")
def samples(theses: list[Thesis], market: Market) -> list[Sample]:
    return build_samples(theses, market, PromptOptions(last_actions=2), split="train", history=theses)


@pytest.fixture(scope="session")
def tokenizer(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer([text for sample in samples for text in (sample.input, sample.output)], 900, folder)
    return folder
