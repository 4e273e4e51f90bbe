"""A run that learns what the market did: labels by brute force, no later day in a prompt, and what it refuses."""

from __future__ import annotations

import json
from math import log, sqrt
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from finseek.cli.main import app
from finseek.core.actions import ACTIONS, Action
from finseek.core.errors import ConfigError
from finseek.pipeline import load_config, run
from finseek.pipeline.placebos import run_placebos
from finseek.theses import load_theses

REALISED = ("split.realised={hold: 0.5, strong: 1.0}", "split.label_horizon=3")


def label_of(bars: pl.DataFrame, place: int) -> str | None:
    """The label of one row of one ticker's bars, from the formula: open of t+1 to open of t+4 over the volatility."""
    closes, opens = bars["adjusted_close"].to_list(), (bars["open"] * bars["adjusted_close"] / bars["close"]).to_list()
    if place < 20 or place + 4 >= len(bars):
        return None
    returns = [log(closes[k] / closes[k - 1]) for k in range(place - 19, place + 1)]
    z = log(opens[place + 4] / opens[place + 1]) / (float(np.std(returns, ddof=1)) * sqrt(3))
    strength = (abs(z) >= 0.5) + (abs(z) >= 1.0)
    return ACTIONS[2 + (strength if z > 0 else -strength)].value


def test_samples_teach_what_the_market_did_and_show_what_was_known(study: Path, market: Path) -> None:
    paths = run(load_config(study, (*REALISED, "prompt.last_actions=1"))).paths
    teacher = {(t.ticker, t.as_of_date.isoformat()): t.action for t in load_theses(paths.theses / "all.jsonl")}
    bars = pl.read_parquet(market / "prices.parquet").sort("date").partition_by("ticker", as_dict=True)
    places = {
        (name, str(day)): place for (name,), table in bars.items() for place, day in enumerate(table["date"].to_list())
    }
    seen: set[str] = set()
    differing = 0
    for name in ("training", "validation", "test"):
        for line in (paths.samples / f"{name}.jsonl").read_text().splitlines():
            sample = json.loads(line)
            about = sample["metadata"]
            key = (about["ticker"], about["as_of_date"])
            wanted = label_of(bars[(key[0],)], places[key])
            assert about["action"] == wanted
            assert sample["output"] == f"<action>{wanted}</action>"
            differing += wanted != teacher[key].value
            seen.add(str(wanted))
            before = [day for ticker, day in teacher if ticker == key[0] and day < key[1]]
            last = teacher[key[0], max(before)].value if before else "none"
            assert f"last_action_1={last}" in sample["input"]
    assert differing > 100
    assert seen == {action.value for action in Action}
    scores = json.loads((paths.evaluate / "metrics.json").read_bytes())
    tested = [json.loads(line)["metadata"] for line in (paths.samples / "test.jsonl").read_text().splitlines()]
    hits = 0
    for about in tested:
        days = [day for ticker, day in teacher if ticker == about["ticker"] and day < about["as_of_date"]]
        hits += bool(days) and teacher[about["ticker"], max(days)].value == about["action"]
    assert scores["baselines"]["persistence"]["accuracy"]["value"] == pytest.approx(hits / len(tested))
    certificate = json.loads((paths.split / "certificate.json").read_bytes())
    assert certificate["options"]["realised"] == {"entry": "next_open", "excess": False, "hold": 0.5, "strong": 1.0}
    assert certificate["dropped"]["no_label"] > 0
    assert certificate["labels_disjoint"] is True
    assert "The labels of this run are not the theses&#39; actions" in paths.report_html.read_text()


@pytest.mark.parametrize(
    ("assignments", "says"),
    [
        (("prices.source=null",), r"split.realised takes the labels from prices: set prices.source"),
        (("prompt.answer_order=[action, reasoning]",), r"set prompt.answer_order to \[action\]"),
        (("split.realised.excess=true",), "set prices.benchmark"),
        (("split.label_horizon=0",), "leaves no session for a realised return"),
        (("split.purge=false",), "would let realised labels reach into later splits: set it to true"),
        (("split.realised.hold=2",), r"hold 2.0 must be below strong 1.0"),
    ],
)
def test_what_does_not_fit_is_refused(study: Path, assignments: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(study, (*REALISED, *assignments))


def test_a_placebo_of_theses_says_nothing_of_the_market(study: Path) -> None:
    with pytest.raises(ConfigError, match=r"audit the same config with split\.realised null"):
        run_placebos(load_config(study, REALISED), ["shuffled_labels"])


def test_folds_hold_the_theses_own_actions_and_say_so(study: Path, tmp_path: Path) -> None:
    settings = [part for text in REALISED for part in ("--set", text)]
    with pytest.raises(ConfigError, match=r"folds hold the theses' own actions, not realised labels: .*realised=null"):
        CliRunner().invoke(
            app, ["-q", "theses", "folds", str(study), str(tmp_path / "folds"), *settings], catch_exceptions=False
        )
    assert not (tmp_path / "folds").exists()
