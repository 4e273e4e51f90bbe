"""Gates, verdict and the figures under them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from report_generator import certificate, estimate, make_inputs

from finseek.core.errors import ArtifactError
from finseek.report import ReportInputs, build_report
from finseek.report.figures import Estimate, read_figures
from finseek.report.gates import judge_gates
from finseek.report.sections.backtest import drawdown, monthly
from finseek.report.sections.predictions import calibration_points
from finseek.report.sections.statistics import binned
from finseek.report.sections.training import section as training


def light(inputs: ReportInputs, key: str) -> str:
    return next(gate.light for gate in judge_gates(inputs, read_figures(inputs)) if gate.key == key)


def changed(field: str, *path: str, value: Any, base: ReportInputs | None = None) -> ReportInputs:
    """Inputs with one value of one artifact replaced."""
    inputs = base or make_inputs()

    def put(tree: Any, steps: tuple[str, ...]) -> Any:
        return {**tree, steps[0]: put(tree.get(steps[0], {}), steps[1:])} if steps else value

    return replace(inputs, **{field: put(getattr(inputs, field), path)})


@pytest.mark.parametrize(
    ("gate", "inputs", "expected"),
    [
        ("split", make_inputs(), "pass"),
        ("split", make_inputs(certificate=certificate(disjoint=False)), "fail"),
        ("split", changed("certificate", "labels_disjoint", value=None), "skipped"),
        ("leaks", make_inputs(), "pass"),
        ("leaks", changed("audit", "leaks", "status", value="failed"), "fail"),
        ("leaks", changed("audit", "leaks", "status", value="caution"), "caution"),
        ("leaks", changed("audit", "leaks", "status", value="a word that nobody knows"), "skipped"),
        ("contamination", make_inputs(), "skipped"),
        ("contamination", changed("audit", "contamination", value={"status": "passed", "summary": "s"}), "pass"),
        ("coverage", changed("evaluation", "rows", value={"total": 1000, "scored": 990}), "pass"),
        ("coverage", changed("evaluation", "rows", value={"total": 1000, "scored": 989}), "caution"),
        ("coverage", changed("evaluation", "rows", value={"total": 1000, "scored": 899}), "fail"),
        ("coverage", make_inputs(evaluation=None), "skipped"),
        ("costs", make_inputs(), "pass"),
        ("costs", changed("config", "backtest", "slippage", value=0.0), "caution"),
        ("costs", changed("config", "backtest", value={"slippage": 0.0, "transaction_cost": 0.0}), "fail"),
        ("costs", make_inputs(backtest=None), "skipped"),
        ("significance", make_inputs(excess=0.2), "pass"),
        ("significance", make_inputs(), "caution"),
        ("significance", make_inputs(excess=-0.2), "fail"),
        ("significance", changed("backtest", "excess", "annual", value=-0.03), "skipped"),
        ("reproducibility", make_inputs(), "pass"),
        ("reproducibility", changed("run", "code", "git_dirty", value=True), "caution"),
        ("reproducibility", changed("run", "code", value={}), "caution"),
        ("reproducibility", changed("run", "seed", value=None), "fail"),
        ("reproducibility", make_inputs(lineage=None), "skipped"),
    ],
)
def test_gates(gate: str, inputs: ReportInputs, expected: str) -> None:
    assert light(inputs, gate) == expected


def verdict(inputs: ReportInputs) -> dict[str, Any]:
    found: dict[str, Any] = build_report(inputs)[1]["verdict"]
    return found


def with_baselines(inputs: ReportInputs, **differences: dict[str, float]) -> ReportInputs:
    assert inputs.evaluation is not None
    baselines = {name: {"accuracy": 0.4, "difference": {"accuracy": found}} for name, found in differences.items()}
    return replace(inputs, evaluation={**inputs.evaluation, "baselines": baselines})


def test_the_verdict_of_an_ordinary_failure() -> None:
    told = verdict(make_inputs())
    assert told["headline"] == (
        "Does not beat buy-and-hold; the excess cannot be told from luck; "
        "predicts the teacher better than 1 of 3 baselines."
    )
    assert told["light"] == "fail"
    text = " ".join(told["sentences"])
    assert "77 sessions could only have shown an annual Sharpe above 3.55" in text
    assert "12 trials" in text
    assert "which includes zero" in text
    assert "Red gates: contamination." in text


def test_a_good_result_with_a_red_gate_is_no_more_than_caution() -> None:
    good = with_baselines(
        make_inputs(1, excess=0.3, drift=0.004), majority=estimate(0.2, 0.05), persistence=estimate(0.1, 0.05)
    )
    told = verdict(good)
    assert told["headline"] == (
        "Earned more than buy-and-hold; earns more than its exposure explains; "
        "predicts the teacher better than both baselines."
    )
    assert told["light"] == "caution"
    clean = replace(good, audit={name: {"status": "passed", "summary": "s"} for name in ("leaks", "contamination")})
    assert verdict(clean)["light"] == "pass"


def test_an_interval_that_touches_zero_is_no_victory() -> None:
    assert Estimate(0.1, 0.0, 0.2).reading == "includes zero"
    told = verdict(with_baselines(make_inputs(), majority={"value": 0.1, "low": 0.0, "high": 0.2}))
    assert "no better than the baselines" in told["headline"]


def test_trials_that_nobody_counted_are_said() -> None:
    assert any("was not recorded" in sentence for sentence in verdict(make_inputs(trials=None))["sentences"])


def test_the_excess_without_interval_says_so() -> None:
    told = verdict(changed("backtest", "excess", "annual", value=-0.03))
    assert "the excess has no interval" in told["headline"]


def test_accounts_come_in_order_and_the_other_hold_is_beside() -> None:
    names = [account.name for account in read_figures(make_inputs()).accounts]
    assert names == ["strategy", "hold_keep", "buy_and_hold", "all_buy", "momentum"]


def test_drawdown_against_numpy() -> None:
    equity = np.random.default_rng(0).lognormal(0, 0.1, 200)
    expected = equity / np.maximum.accumulate(equity) - 1
    assert drawdown(equity.tolist()) == pytest.approx(expected.tolist())


def test_months_against_polars() -> None:
    inputs = make_inputs(sessions=400)
    assert inputs.equity is not None
    table = pl.DataFrame({"date": inputs.equity["date"], "equity": inputs.equity["equity"]})
    ends = table.group_by(pl.col("date").str.slice(0, 7), maintain_order=True).agg(pl.col("equity").last())["equity"]
    gains = (ends / ends.shift(1, fill_value=table["equity"][0]) - 1).to_list()
    matrix = monthly(inputs.equity["date"], inputs.equity["equity"])
    assert matrix is not None
    shown = [cell.text for _, cells in matrix.rows for cell in cells[1:] if cell.text]
    assert [float(t.replace("−", "-").split("\N{NO-BREAK SPACE}")[0]) for t in shown] == [
        pytest.approx(100 * g, abs=0.051) for g in gains
    ]
    years = [float(cells[0].text.replace("−", "-").split("\N{NO-BREAK SPACE}")[0]) / 100 for _, cells in matrix.rows]
    assert np.prod(np.add(years, 1)) == pytest.approx(inputs.equity["equity"][-1] / 1e5, abs=0.002)


def test_an_equity_table_without_its_columns_is_refused() -> None:
    with pytest.raises(ArtifactError, match="holds dates, series; it needs date and equity"):
        build_report(make_inputs(equity={"dates": [], "series": {}}))


def test_months_of_nothing() -> None:
    assert monthly([], []) is None
    assert monthly(["2025-01-02"], [None]) is None


def test_calibration_counts_by_hand() -> None:
    def row(p: list[float], answer: str, truth: str, status: str = "scored") -> dict[str, Any]:
        names = ("p_strong_sell", "p_sell", "p_hold", "p_buy", "p_strong_buy")
        return {"status": status, "pred_action": answer, "gt_action": truth, **dict(zip(names, p, strict=True))}

    rows = [
        row([0.0, 0.62, 0.38, 0.0, 0.0], "SELL", "SELL"),
        row([0.0, 0.66, 0.34, 0.0, 0.0], "SELL", "HOLD"),
        row([0.0, 0.0, 0.0, 1.0, 0.0], "BUY", "BUY"),
        row([0.0, 0.0, 0.0, 1.0, 0.0], "BUY", "SELL", status="no_action"),
        {"status": "scored", "pred_action": "BUY", "gt_action": "BUY"},
    ]
    assert calibration_points(rows) == [(pytest.approx(0.64), 0.5, 2), (1.0, 1.0, 1)]


def test_bins_hold_every_draw_once() -> None:
    draws = sorted(np.random.default_rng(1).normal(0, 1, 1000).tolist())
    middles, counts = binned(draws)
    assert sum(counts) == 1000
    edges = [m - (middles[1] - middles[0]) / 2 for m in middles] + [middles[-1] + (middles[1] - middles[0]) / 2]
    assert counts == np.histogram(draws, bins=edges)[0].tolist()
    assert sum(binned([0.5, 0.5, 0.5])[1]) == 3


def test_validation_is_joined_between_its_points() -> None:
    log = [
        {"step": 1, "loss": 3.0, "validation_loss": 4.0},
        {"step": 2, "loss": 2.0, "validation_loss": None},
        {"step": 3, "loss": 1.0, "validation_loss": 2.0},
        {"step": 4, "loss": 1.0, "validation_loss": None},
    ]
    made = training(make_inputs(train_log=log)).blocks[1]
    assert made.data["values"][1] == ["4.000", "3.000", "2.000", "–"]  # type: ignore[union-attr]


def test_beating_buy_and_hold_is_said_only_of_an_interval_above_zero() -> None:
    path = ("benchmarks", "buy_and_hold", "return_difference_annual")
    good = make_inputs(1, excess=0.3, drift=0.004)

    def headline(difference: Any) -> str:
        return str(verdict(changed("backtest", *path, value=difference, base=good))["headline"])

    assert headline(estimate(0.2, 0.1)).startswith("Beats buy-and-hold;")
    assert headline(estimate(0.2, 0.3)).startswith("Earned more than buy-and-hold;")
    assert headline(0.2).startswith("Earned more than buy-and-hold;")
