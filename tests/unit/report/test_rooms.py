"""The report of what the other rooms really write, not of a generator's imitation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from report_generator import make_inputs

from finseek.backtest import BacktestOptions, Signal, run_backtest
from finseek.core.actions import ACTIONS
from finseek.evaluate import EvaluateOptions, Prediction, score_predictions
from finseek.market import generate_prices
from finseek.report import ReportInputs, build_report, report_schema
from finseek.theses import SplitOptions, parse_theses, split_by_time
from finseek.theses.synthetic import generate_theses, write_theses_xml


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    """A market, its theses read back from XML, a split, a noisy copy of the teacher as the model, and its account."""
    folder: Path = tmp_path_factory.mktemp("rooms")
    prices, planted = generate_prices(3, n_tickers=6, n_sessions=160, alpha=0.3)
    found = generate_theses(planted.signal, prices.sessions, prices.tickers, seed=3)
    write_theses_xml(found.theses, folder / "xml")
    summary = parse_theses(folder / "xml", folder)
    days = prices.sessions.dates.tolist()
    options = SplitOptions(train_end=days[99], test_start=days[110], validation_days=20)
    split = split_by_time(found.theses, prices.sessions, options)
    rng = np.random.default_rng(3)
    answers = [t.action if rng.random() < 0.7 else ACTIONS[rng.integers(5)] for t in split.test]
    p = dict.fromkeys(ACTIONS, 0.2)
    rows = [
        Prediction(t.ticker, t.as_of_date, t.action, answer, "scored", p, f"<action>{answer}</action>")
        for t, answer in zip(split.test, answers, strict=True)
    ]
    scored = EvaluateOptions(bootstrap_resamples=200, forward_windows=(1, 5))
    metrics = score_predictions(rows, prices, scored, training=split.train, history=found.theses)
    result = run_backtest([Signal(r.ticker, r.as_of_date, r.pred_action) for r in rows], prices, BacktestOptions())
    equity = {name: [str(v) if name == "date" else v for v in result.equity[name]] for name in result.equity.columns}
    plain: dict[str, Any] = json.loads(
        json.dumps({"e": metrics.to_json(), "b": result.metrics, "c": split.certificate})
    )
    return replace(
        make_inputs(),
        theses=summary,
        certificate=plain["c"],
        evaluation=plain["e"],
        backtest=plain["b"],
        equity=equity,
        planted={"bayes_accuracy": found.bayes_accuracy},
    )


def test_every_figure_arrives(made: ReportInputs) -> None:
    _, report = build_report(made)
    jsonschema.validate(report, report_schema())
    assert made.evaluation is not None
    assert made.backtest is not None
    assert made.certificate is not None
    assert report["predictions"]["accuracy"] == made.evaluation["classification"]["all"]["accuracy"]
    assert [b["name"] for b in report["predictions"]["baselines"]] == ["majority", "persistence"]
    assert all(b["difference"]["low"] is not None for b in report["predictions"]["baselines"])
    assert list(report["backtest"]["accounts"])[:4] == ["strategy", "hold_keep", "buy_and_hold", "all_buy"]
    assert report["backtest"]["excess"]["value"] is not None
    assert report["backtest"]["smallest_detectable_sharpe"] == made.backtest["window"]["smallest_detectable_sharpe"]
    assert report["split"]["labels_disjoint"] is True
    assert report["split"]["test_uids_sha256"] == made.certificate["splits"]["test"]["uids_sha256"]
    assert report["theses"]["found"] == report["theses"]["kept"] + report["theses"]["rejected"]
    lights = {gate["key"]: gate["light"] for gate in report["gates"]}
    assert lights["split"] == lights["coverage"] == "pass"


def test_the_page_shows_the_accounts_last_equity(made: ReportInputs) -> None:
    page, report = build_report(made)
    total = report["backtest"]["accounts"]["strategy"]["total_return"]
    shown = f"{total * 100:+.1f}".replace("-", "−")
    assert f"strategy <b>{shown}\N{NO-BREAK SPACE}%</b>" in page
