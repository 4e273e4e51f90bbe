"""What a finished run says of a day, and what its model finds in changed records."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from finseek.audit.trials import verify_trials
from finseek.core.errors import ConfigError, InputError
from finseek.evaluate import read_predictions
from finseek.pipeline import load_config, run
from finseek.pipeline.asking import ask_run
from finseek.pipeline.manifest import verify_manifest
from finseek.pipeline.placebos import placebo_finding, run_placebos


def test_a_run_answers_for_a_day_as_it_did_when_it_was_evaluated(study: Path, market: Path) -> None:
    paths = run(load_config(study)).paths
    answered = {(row.ticker, row.as_of_date): row for row in read_predictions(paths.evaluate / "eval_results.csv")}
    day = date(2022, 7, 15)
    everyone = ask_run(paths.root, None, day)
    assert [opinion.ticker for opinion in everyone] == ["S0", "S1", "S2", "S3", "S4"]
    for opinion in everyone:
        evaluated = answered[opinion.ticker, day]
        assert (opinion.action, opinion.text, opinion.seen) == (evaluated.pred_action, evaluated.completion, False)
        assert opinion.p == pytest.approx(evaluated.p)

    # nothing after the day enters a prompt: with later prices changed the answer stays
    table = pl.read_parquet(market / "prices.parquet")
    later = pl.col("date") > pl.lit(day)
    doubled = [
        pl.when(later).then(pl.col(c) * 2).otherwise(pl.col(c)).alias(c) for c in ("open", "high", "low", "close")
    ]
    table.with_columns(doubled).write_parquet(market / "doubled.parquet")
    (same,) = ask_run(paths.root, ["S1"], day, market / "doubled.parquet")
    assert same.p == pytest.approx(everyone[1].p)

    assert ask_run(paths.root, ["S1"], date(2022, 5, 16))[0].seen
    for ticker, wrong, words in (("S9", day, "'S9' is not in"), ("S0", date(2022, 7, 16), "is no session")):
        with pytest.raises(InputError, match=words):
            ask_run(paths.root, [ticker], wrong)
    with pytest.raises(InputError, match="give --prices that hold it"):
        ask_run(paths.root, None, date(2030, 1, 2))


def test_placebos_train_again_and_touch_neither_the_run_nor_its_trials(study: Path) -> None:
    loaded = load_config(study)
    paths = run(loaded).paths
    chain = paths.root.parent / "trials.jsonl"
    before = (paths.manifest.read_bytes(), chain.read_bytes())
    (found,) = run_placebos(loaded, ["shuffled_labels"])
    assert (paths.manifest.read_bytes(), chain.read_bytes()) == before
    assert list(verify_manifest(paths.root)) == []
    assert found["rows"] == len(read_predictions(paths.evaluate / "eval_results.csv"))
    assert found["change"]["low"] <= found["change"]["value"] <= found["change"]["high"]
    assert not found["leak"]

    made = paths.placebos / "shuffled_labels"
    trained = {name: (root / "train" / "checkpoint" / "model.safetensors").read_bytes()
               for name, root in (("real", paths.root), ("placebo", made))}  # fmt: skip
    assert trained["real"] != trained["placebo"]
    real, changed = (read_predictions(root / "evaluate" / "eval_results.csv") for root in (paths.root, made))
    assert [row.gt_action for row in real] != [row.gt_action for row in changed]

    content = json.loads((paths.placebos / "placebos.json").read_text())
    finding = placebo_finding(content, loaded.config)
    assert finding is not None
    assert finding["status"] == "passed"
    assert placebo_finding(content, load_config(study, ["train.max_steps=7"]).config) is None
    run(loaded, first="report")
    assert "shuffled labels: accuracy" in paths.report_html.read_text()
    assert len(verify_trials(chain)) == before[1].count(b"\n")
    with pytest.raises(ConfigError, match="placebo 'magic' is none of"):
        run_placebos(loaded, ["magic"])
