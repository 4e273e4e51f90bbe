"""Does a run find what is planted, and only that? The language model of the demo, on three seeds of each market."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import yaml

from finseek.core.artifacts import read_json
from finseek.pipeline import demo, load_config, run
from finseek.pipeline.placebos import run_placebos
from finseek.theses import iterate_theses, write_records

pytestmark = pytest.mark.soak
FREE = ("backtest.transaction_cost=0", "backtest.slippage=0", "backtest.shorts=true")


@pytest.mark.parametrize("alpha", [None, 0.0])
def test_the_language_model_on_three_markets(tmp_path: Path, alpha: float | None) -> None:
    """Return a year beyond the exposure-matched universe, before costs: its interval, one-sided 5 %."""
    significant = []
    for seed in range(3):
        loaded = demo.prepare(tmp_path / str(seed), seed=seed, alpha=alpha, assignments=FREE)
        paths = run(loaded, last="backtest").paths
        excess = read_json(paths.backtest / "metrics.json")["excess"]["annual"]
        accuracy = read_json(paths.evaluate / "metrics.json")["classification"]["all"]["accuracy"]["value"]
        print(f"alpha {alpha}, seed {seed}: accuracy {accuracy:.3f}, excess a year {json.dumps(excess)}")
        significant.append(excess["p_value"] is not None and excess["p_value"] < 0.05)
    assert sum(significant) == 3 if alpha is None else sum(significant) <= 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("leak", [False, True])
def test_a_label_in_the_prompt_is_flagged(tmp_path: Path, seed: int, leak: bool) -> None:
    """An indicator that holds the label; shuffling the labels moves it along, so the model finds them again."""
    loaded = demo.prepare(tmp_path, seed=seed, assignments=["train.max_steps=60"])
    if leak:
        first = run(loaded, last="theses").paths.theses / "all.jsonl"
        leaky = tmp_path / "leaky.jsonl"
        told = (
            msgspec.structs.replace(t, indicators={"consensus": f"c{t.action.rank}"}) for t in iterate_theses(first)
        )
        write_records(leaky, told)
        config = loaded.config.to_json()
        config["theses"]["source"], config["prompt"]["indicators"] = str(leaky), ["consensus"]
        (tmp_path / "leaky.yaml").write_text(yaml.safe_dump(config))
        loaded = load_config(tmp_path / "leaky.yaml")
    (found,) = run_placebos(loaded, ["shuffled_labels"])
    print(f"leak {leak}, seed {seed}: {found['accuracy_real']:.3f} -> {found['accuracy_placebo']:.3f}, "
          f"above the majority {found['above_majority']}")  # fmt: skip
    assert found["leak"] == leak
    assert leak or found["change"]["high"] < 0
