"""Comparison, model card, and what importing costs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import yaml
from lxml import html as lxml_html
from report_generator import certificate, make_inputs

from finseek.core.errors import InputError
from finseek.report import build_report, compare_reports, model_card


def report(seed: int = 0, **changes: Any) -> dict[str, Any]:
    return build_report(make_inputs(seed, **changes))[1]


def test_compared_figures_stand_in_their_run_s_column() -> None:
    a, b = report(), report(1, excess=0.2, drift=0.002)
    document = lxml_html.fromstring(compare_reports({"first": a, "second": b}))
    table = document.xpath("//section[@id='figures']//table")[0]
    heads = [cell.text_content() for cell in table.xpath("./thead/tr/th")]
    assert heads == ["Measure", "first", "second", "Meaning"]
    rows = {row[0].text_content(): [cell.text_content() for cell in row[1:3]] for row in table.xpath("./tbody/tr")}
    returns = [r["backtest"]["accounts"]["strategy"]["total_return"] for r in (a, b)]
    shown = [float(text.replace("−", "-").split("\N{NO-BREAK SPACE}")[0]) / 100 for text in rows["Total return"]]
    assert shown == [pytest.approx(r, abs=6e-4) for r in returns]
    headline = document.xpath("//section[@id='verdict']/h2")[0].text_content()
    assert headline.startswith("second: more return")


def test_runs_on_different_tests_are_not_comparable() -> None:
    other = certificate()
    other["splits"]["test"]["uids_sha256"] = "cd" * 32
    page = compare_reports({"a": report(), "b": report(certificate=other)})
    assert "different test theses" in page
    assert "same test theses" in compare_reports({"a": report(), "b": report(1)})


def test_comparison_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(InputError, match="at least two runs, not 1"):
        compare_reports({"a": report()})
    with pytest.raises(InputError, match=r"report of b has format 99.*make it again"):
        compare_reports({"a": report(), "b": {**report(), "format": 99}})


def front_matter(card: str) -> dict[str, Any]:
    _, metadata, body = card.split("---\n", 2)
    assert body.strip().startswith("# ")
    found: dict[str, Any] = yaml.safe_load(metadata)
    return found


def test_the_card_states_what_the_report_states() -> None:
    inputs = make_inputs()
    card = model_card(inputs)
    metadata = front_matter(card)
    accuracy = build_report(inputs)[1]["predictions"]["accuracy"]["value"]
    assert metadata["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": round(accuracy, 4)}]
    assert "license" not in metadata
    assert build_report(inputs)[1]["verdict"]["headline"] in card
    assert "| Contamination | not run |" in card


def test_the_card_of_a_tuned_checkpoint_names_its_base() -> None:
    inputs = make_inputs()
    config = {**inputs.config, "model": {"preset": None, "path": "models/base-7b"}}
    assert front_matter(model_card(replace(inputs, config=config)))["base_model"] == "base-7b"


def test_the_card_of_a_run_without_evaluation() -> None:
    bare = make_inputs(evaluation=None, backtest=None, certificate=None, train_log=())
    assert "model-index" not in front_matter(model_card(bare))


def test_text_cannot_break_the_card() -> None:
    inputs = make_inputs()
    evil = replace(inputs, run={**inputs.run, "name": "a|b\n# c <b> `d`"})
    card = model_card(evil)
    assert "# a\\|b \\# c \\<b\\> \\`d\\`" in card
    assert front_matter(card)["model-index"][0]["name"] == "a|b\n# c <b> `d`"


def test_importing_the_report_brings_no_heavy_module() -> None:
    heavy = ("torch", "transformers", "pandas", "numba", "polars")
    code = f"import sys, finseek.report; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
