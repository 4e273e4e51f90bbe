from __future__ import annotations

from datetime import date, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest

from finseek.core.actions import ACTIONS
from finseek.core.errors import ArtifactError, InputError
from finseek.samples import History, PromptOptions, build_samples, load_samples, write_sample_files, write_samples
from finseek.samples.prompts import shortened
from finseek.theses import SplitOptions, Thesis, split_by_time, write_records, write_split


def test_prompt_and_answer(theses: list[Thesis], market: Any) -> None:
    options = PromptOptions(instruction="Decide.", last_actions=2, as_of_date=True, indicators=("rsi",))
    sample = build_samples([theses[1]], market, options, split="train", history=theses)[0]
    assert sample.input == (
        "Decide.\nticker=AAA as_of=2024-01-02 last_action_1=STRONG_SELL last_action_2=none rsi=1\n"
        + market.text("AAA", date(2024, 1, 2))
    )
    assert sample.output == (
        f"<action>HOLD</action>\n<reasoning>{theses[1].reasoning}</reasoning>\n<support>1. Volume 1\n2. RSI</support>"
    )
    assert sample.metadata == {
        "uid": theses[1].uid,
        "ticker": "AAA",
        "as_of_date": "2024-01-02",
        "action": "HOLD",
        "split": "train",
        "action_span": [8, 21],
    }


@pytest.mark.parametrize(
    "order",
    [order for n in (1, 2, 3) for order in permutations(("action", "reasoning", "support"), n) if "action" in order],
)
def test_every_order_of_the_answer(order: tuple[Any, ...], theses: list[Thesis]) -> None:
    for sample, thesis in zip(
        build_samples(theses, None, PromptOptions(answer_order=order), split="test"), theses, strict=True
    ):
        bodies = {"action": thesis.action.value, "reasoning": thesis.reasoning, "support": thesis.support}
        assert sample.output == "\n".join(f"<{part}>{bodies[part]}</{part}>" for part in order)
        start, end = sample.metadata["action_span"]
        assert sample.output[start:end] == f"{thesis.action}</action>"
        assert sample.output[:start].endswith("<action>")


@pytest.mark.parametrize("order", [(), ("reasoning",), ("action", "action")])
def test_answers_that_cannot_be_scored(order: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="must hold action and no part twice"):
        PromptOptions(answer_order=order)


def test_only_named_indicators_enter(theses: list[Thesis], market: Any) -> None:
    plain = build_samples(theses, market, PromptOptions(), split="train")
    assert not any("rsi" in sample.input or "vix" in sample.input for sample in plain)
    with pytest.raises(InputError, match="no indicator 'beta'"):
        build_samples(theses, market, PromptOptions(indicators=("beta",)), split="train")


def test_the_prompt_is_a_function_of_what_was_known(theses: list[Thesis], market: Any) -> None:
    """Changing texts, the own action and everything later changes no prompt."""
    options = PromptOptions(last_actions=3)
    here = START_PLUS_30 = date(2024, 1, 31)
    changed = [
        msgspec.structs.replace(t, reasoning="x", support="y", action=ACTIONS[-1 - ACTIONS.index(t.action)])
        if t.as_of_date >= START_PLUS_30
        else t
        for t in theses
    ]
    before = build_samples(theses, market, options, split="train", history=theses)
    after = build_samples(changed, market, options, split="train", history=changed)
    for one, other in zip(before, after, strict=True):
        if one.metadata["as_of_date"] <= here.isoformat():
            assert one.input == other.input
    assert any(one.input != other.input for one, other in zip(before, after, strict=True))


def test_history_against_a_plain_loop(theses: list[Thesis]) -> None:
    history = History(theses[::-1])
    for thesis in theses[::7]:
        earlier = [t for t in theses if t.ticker == thesis.ticker and t.as_of_date < thesis.as_of_date]
        latest = [t.action for t in sorted(earlier, key=lambda t: t.as_of_date)][::-1][:4]
        assert history.last(thesis.ticker, thesis.as_of_date, 4) == latest + [None] * (4 - len(latest))
    assert history.last("ZZZ", date(2024, 1, 1), 2) == [None, None]


def test_custom_theses_are_used_verbatim(theses: list[Thesis]) -> None:
    custom = msgspec.structs.replace(theses[0], instruction="Do this.", input="Given that.", output="<x>BUY</x>")
    sample = build_samples([custom], None, PromptOptions(ticker=False), split="train")[0]
    assert (sample.input, sample.output) == ("Do this.\nGiven that.", "<x>BUY</x>")
    assert sample.metadata["action_span"] is None


def test_a_market_without_the_bar(theses: list[Thesis]) -> None:
    class Closed:
        def text(self, ticker: str, as_of_date: date) -> str:
            raise InputError(f"no bar of {ticker} on {as_of_date}")

    with pytest.raises(InputError, match="no bar of AAA"):
        build_samples(theses, Closed(), PromptOptions(), split="train")


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("one two three", None, "one two three"),
        ("one two three", 13, "one two three"),
        ("one two three", 12, "one two"),
        ("one two three", 7, "one two"),
        ("one two three", 4, "one"),
        ("one two three", 3, "one"),
        ("one two three", 2, "on"),
    ],
)
def test_shortened_to_whole_words(text: str, limit: int | None, expected: str) -> None:
    assert shortened(text, limit) == expected


def test_files(theses: list[Thesis], market: Any, tmp_path: Path) -> None:
    write_records(tmp_path / "all.jsonl", theses)
    cuts = SplitOptions(train_end=date(2024, 1, 31), test_start=date(2024, 2, 1), validation_days=10, purge=False)
    write_split(tmp_path / "all.jsonl", tmp_path / "split", None, cuts)
    options = PromptOptions(last_actions=2)
    counts = write_sample_files(tmp_path / "split", tmp_path / "all.jsonl", tmp_path / "samples", market, options)
    split = split_by_time(theses, None, cuts)
    for name, file in (("train", "training"), ("validation", "validation"), ("test", "test")):
        expected = build_samples(getattr(split, name), market, options, split=name, history=theses)
        assert load_samples(tmp_path / "samples" / f"{file}.jsonl") == expected
        assert counts[name] == len(expected)
    first = build_samples(split.test, market, options, split="test", history=theses)[0]
    assert "last_action_1=none" not in first.input


def test_samples_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run the samples stage"):
        load_samples(tmp_path / "training.jsonl")
    (tmp_path / "training.jsonl").write_text("{}\n")
    with pytest.raises(ArtifactError, match=r"jsonl:1 is no sample"):
        load_samples(tmp_path / "training.jsonl")
    write_samples(tmp_path / "training.jsonl", [])
    assert load_samples(tmp_path / "training.jsonl") == []


def test_one_day_is_not_before_itself(theses: list[Thesis]) -> None:
    history = History(theses)
    day = theses[0].as_of_date
    assert history.last("AAA", day, 1) == [None]
    assert history.last("AAA", day + timedelta(days=1), 1) == [theses[0].action]
