from __future__ import annotations

import builtins
from collections import Counter
from datetime import date
from math import log

import pytest

from finseek.core.actions import Action
from finseek.core.errors import InputError
from finseek.evaluate import EvaluateOptions, Prediction, load_backend, predict
from finseek.evaluate.draws import agreement, vote
from finseek.evaluate.text import grounding, text_metrics
from finseek.samples import Sample


def pair(text: str, teacher: str, prompt: str = "") -> tuple[Sample, Prediction]:
    return Sample(prompt, teacher, {}), Prediction("A", date(2025, 1, 2), Action.BUY, None, "tie", completion=text)


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        ("fell 2.1 % on volume of 1,200", "ret1=-2.13 volume=1200", (2, 2)),
        ("fell 2.2 %", "ret1=-2.13", (1, 0)),
        ("RSI 38, up 5", "rsi14=38.4 ret5=+4.6", (2, 2)),
        ("no numbers, only A4 and x2", "ret1=1", (0, 0)),
        ("3.", "pos=3", (1, 1)),
    ],
)
def test_a_number_is_grounded_if_the_prompt_rounds_to_it(text, prompt, expected):
    assert grounding(text, prompt) == expected


def test_validity_length_and_similarity():
    same = "<action>BUY</action>\n<reasoning>the close rose 3 %</reasoning>"
    pairs = [pair(same, same, "ret1=+3.0"), pair(f"Sure: {same}", same), pair("nothing at all", same)]
    found = text_metrics(*zip(*pairs, strict=True))
    assert (found["well_formed"], found["well_formed_or_repaired"]) == pytest.approx((1 / 3, 2 / 3))
    assert (found["numbers"], found["grounded_numbers"]) == (2, 0.5)
    assert found["mean_characters"] == pytest.approx((len(same) * 2 + 6 + 14) / 3)
    assert 0.5 < found["rouge_l"] < 0.75
    assert 0.5 < found["chrf"] < 0.9
    whole = text_metrics(*zip(pairs[0], strict=True))
    assert whole["rouge_l"] == pytest.approx(1)
    assert whole["chrf"] == pytest.approx(1)
    assert text_metrics(*zip(*pairs, strict=True), rows=0)["rouge_l"] is None


def test_without_the_library_the_similarity_is_absent_and_says_why(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("torchmetrics"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    found = text_metrics(*zip(pair("a", "b"), strict=True))
    assert found["rouge_l"] is None
    assert "finseek[train]" in found["missing"]


def test_unequal_numbers_are_refused():
    with pytest.raises(InputError, match="give pairs"):
        text_metrics([], [])


def test_agreement_and_entropy_by_hand():
    def row(action):
        return Prediction("A", date(2025, 1, 2), Action.BUY, action, "scored" if action else "tie")

    draws = [[row(Action.BUY), row(Action.BUY)], [row(Action.BUY), row(Action.SELL)], [row(None), row(Action.HOLD)]]
    found = agreement(draws)
    assert found["agreement"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert found["entropy"] == pytest.approx((-(2 / 3 * log(2 / 3) + 1 / 3 * log(1 / 3)) + log(3)) / 2)
    assert (found["voted"], found["vote_accuracy"]) == (1, 0.5)
    assert vote(Counter([None, None, Action.BUY])) is None


def test_draws_differ_and_are_kept(memoriser, tmp_path):
    folder, samples = memoriser("action first")
    options = EvaluateOptions(mode="generate", temperature=1.5, max_new_tokens=10)
    backend = load_backend(options, folder)
    seeded = [backend.reseeded(seed) for seed in range(3)]
    draws = [predict(samples, one, options, answers=tmp_path / "a.jsonl") for one in seeded]
    assert len({tuple(row.completion for row in draw) for draw in draws}) == 3
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 30
    assert [predict(samples, one, options) for one in seeded] == draws
    assert agreement(draws)["rows"] == 10
    with pytest.raises(ValueError, match="a temperature above 0"):
        EvaluateOptions(draws=3)
