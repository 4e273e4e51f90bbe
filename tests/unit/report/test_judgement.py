"""Gates, verdict and the figures under them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from lxml import html as lxml_html
from report_generator import certificate, estimate, make_inputs

from finseek.core.errors import ArtifactError
from finseek.report import ReportInputs, build_report
from finseek.report.figures import Estimate, read_figures
from finseek.report.gates import judge_gates
from finseek.report.sections.backtest import drawdown, monthly
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
        "Nothing to trade: not shown to earn more than its exposure to the market explains, and does not beat "
        "buy-and-hold. The model predicts the teacher better than 1 of 3 baselines."
    )
    assert told["light"] == "fail"
    text = " ".join(told["sentences"])
    assert "77 sessions can only show an annual Sharpe above 3.55" in text
    assert "12 trials" in text
    assert "which includes zero" in text
    assert "Red gates: contamination; caution: significance." in text


def test_a_good_result_with_a_red_gate_is_no_more_than_caution() -> None:
    good = with_baselines(
        make_inputs(1, excess=0.3, drift=0.004), majority=estimate(0.2, 0.05), persistence=estimate(0.1, 0.05)
    )
    told = verdict(good)
    assert told["headline"] == (
        "Earns more than its exposure to the market explains, but is not shown to beat buy-and-hold. "
        "The model predicts the teacher better than both baselines."
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
    assert "has no interval" in told["headline"]


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
    more = "Earns more than its exposure to the market explains"

    def headline(difference: Any) -> str:
        return str(verdict(changed("backtest", *path, value=difference, base=good))["headline"])

    assert headline(estimate(0.2, 0.1)).startswith(f"{more}, and beats buy-and-hold.")
    assert headline(estimate(0.2, 0.3)).startswith(f"{more}, but is not shown to beat buy-and-hold.")
    assert headline(0.2).startswith(f"{more}, but is not shown to beat buy-and-hold.")


@pytest.mark.parametrize(
    ("excess", "drift", "expected"),
    [
        (0.2, 0.004, "pass"),
        (0.05, 0.004, "caution"),
        (-0.05, 0.004, "fail"),
        (0.05, -0.004, "fail"),
        (-0.2, 0.004, "fail"),
    ],
)
def test_the_light_of_the_trading(excess: float, drift: float, expected: str) -> None:
    """Doubtful is yellow only where both the excess and the lead over buy-and-hold point upwards."""
    clean = {name: {"status": "passed", "summary": "s"} for name in ("leaks", "contamination")}
    inputs = with_baselines(make_inputs(1, excess=excess, drift=drift, audit=clean), majority=estimate(0.2, 0.05))
    assert verdict(inputs)["light"] == expected


def test_each_baseline_is_named_once_by_what_its_interval_says() -> None:
    text = " ".join(verdict(make_inputs())["sentences"])
    assert "better than that of majority (" in text
    assert (
        "not to be told apart from that of persistence (+2.0 percentage points, 95\N{NO-BREAK SPACE}% interval −1.0"
        in text
    )
    assert "worse than that of gradient boosting (−5.0 percentage points" in text


def test_a_loss_is_called_a_loss() -> None:
    losing = changed("backtest", "performance", "total_return", value=-0.0197)
    first = verdict(losing)["sentences"][0]
    assert first.startswith(
        "After costs the account lost 2.0\N{NO-BREAK SPACE}% with 52.0\N{NO-BREAK SPACE}% of it invested"
    )


def test_what_costs_took_adds_up() -> None:
    table = next(t for t in _tables("backtest") if t["caption"] == "Where the profit came from")
    money = {row[0]: float(row[1].replace("−", "-").replace(",", "")) for row in table["rows"]}
    assert money["before costs"] + money["fees"] + money["slippage"] == money["all together"] == 2900


def test_the_page_shows_the_calibration_of_the_evaluation() -> None:
    document = lxml_html.fromstring(build_report(make_inputs())[0])
    drawn = document.get_element_by_id("chart-calibration").xpath(".//details//tbody/tr")
    shown = [[cell.text_content().replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in drawn]
    assert ["45.0 % sure, 150 rows", "41.0 %", "45.0 %"] in shown
    assert shown[0] == ["0.0 %", "–", "0.0 %"]
    assert shown[-1] == ["100.0 %", "–", "100.0 %"]


@pytest.mark.parametrize(("keep", "told"), [("best", "that did best on them"), ("last", "of the last step")])
def test_the_training_says_which_weights_were_kept(keep: str, told: str) -> None:
    assert told in training(changed("config", "train", "keep", value=keep)).lead


def _tables(section: str) -> list[dict[str, Any]]:
    document = lxml_html.fromstring(build_report(make_inputs())[0])
    return [
        {
            "caption": table.find("caption").text_content(),
            "rows": [[cell.text_content() for cell in row] for row in table.xpath("./tbody/tr")],
        }
        for table in document.get_element_by_id(section).iter("table")
    ]
