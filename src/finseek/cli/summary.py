"""Results of a run on standard output: a table for people, JSON for machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finseek.cli.terminal import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finseek.pipeline.run import RunResult, StageOutcome


def percent(value: float | None) -> str:
    """A fraction as a percentage; absence as a dash."""
    return "–" if value is None else f"{value:+.1%}"


def number(value: float | None) -> str:
    """A figure with two decimals; absence as a dash."""
    return "–" if value is None else f"{value:.2f}"


def estimate(found: dict[str, Any] | None, form: str = ".3f") -> str:
    """A value with its interval."""
    if not found or found.get("value") is None:
        return "–"
    if found.get("low") is None or found.get("high") is None:
        return f"{found['value']:{form}}"
    return f"{found['value']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


def print_plan(plan: Sequence[StageOutcome], as_json: bool) -> None:
    """What a run would do."""
    if as_json:
        print_json([{"stage": step.name, "status": step.status, "reason": step.reason} for step in plan])
    else:
        print_table("Stages", ("stage", "status", "reason"), [(step.name, step.status, step.reason) for step in plan])


def print_summary(result: RunResult, as_json: bool) -> None:
    """What a run did and found."""
    from finseek.core.artifacts import read_json

    paths = result.paths
    evaluation = read_json(paths.evaluate / "metrics.json") if (paths.evaluate / "metrics.json").is_file() else None
    backtest = read_json(paths.backtest / "metrics.json") if (paths.backtest / "metrics.json").is_file() else None
    planted = read_json(result.config.report.planted) if result.config.report.planted else None
    done = {outcome.name: outcome for outcome in result.outcomes if outcome.status != "left out"}
    if as_json:
        stages = {
            step.name: {"status": step.status, "counts": step.counts, "seconds": step.seconds}
            for step in result.outcomes
        }
        print_json({
            "run": str(paths.root),
            "report": str(paths.report_html) if "report" in done else None,
            "stages": stages,
            "evaluation": evaluation if "evaluate" in done else None,
            "backtest": backtest if "backtest" in done else None,
            "planted": planted,
        })  # fmt: skip
        return
    rows: list[tuple[str, str]] = []
    if evaluation and "evaluate" in done:
        rows += _evaluation_rows(evaluation, planted)
    if backtest and "backtest" in done:
        rows += _backtest_rows(backtest)
    if rows:
        print_table(f"Run {paths.root.name}", ("figure", "value [95 % interval]"), rows)
    if "report" in done:
        print(f"report: {paths.report_html}")
    else:
        print(f"run: {paths.root}")


def print_backtest(metrics: dict[str, Any], folder: Path, as_json: bool) -> None:
    """What a backtest found."""
    if as_json:
        print_json(metrics)
        return
    print_table("Backtest", ("figure", "value [95 % interval]"), _backtest_rows(metrics))
    print(f"files: {folder}")


def print_evaluation(metrics: dict[str, Any], folder: Path, as_json: bool) -> None:
    """What an evaluation found."""
    if as_json:
        print_json(metrics)
        return
    print_table("Evaluation", ("figure", "value [95 % interval]"), _evaluation_rows(metrics, None))
    print(f"files: {folder}")


def _evaluation_rows(metrics: dict[str, Any], planted: dict[str, Any] | None) -> list[tuple[str, str]]:
    scored = metrics["rows"]
    rows = [
        ("test rows scored", f"{scored['scored']:,} of {scored['total']:,} in {scored['sessions']} sessions"),
        ("accuracy", estimate(metrics["classification"]["all"]["accuracy"])),
    ]
    for name, found in metrics["baselines"].items():
        rows.append((f"accuracy of {name}", estimate(found["accuracy"])))
        rows.append((f"  model minus {name}", estimate(found["difference"]["accuracy"], "+.3f")))
    if metrics["financial"]:
        next_session = metrics["financial"]["1"]
        rows.append(("hit rate, next session", estimate(next_session["hit_rate"])))
        rows.append(("rows without a forward return", f"{next_session['rows']['without_return']:,}"))
    if planted:
        rows.append(("Bayes accuracy of the planted signal", f"{planted['bayes_accuracy']:.3f}"))
    return rows


def _backtest_rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    mine, window = metrics["performance"], metrics["window"]
    rows = [
        ("backtest", f"{window['first_decision']} to {window['last']}, {window['sessions']} sessions"),
        ("total return after costs", percent(mine["total_return"])),
        ("excess over exposure-matched universe, a year", estimate(metrics["excess"]["annual"], "+.1%")),
        ("Sharpe", estimate(metrics["intervals"]["sharpe"], ".2f")),
        ("  smallest that the sample could detect", number(window["smallest_detectable_sharpe"])),
        ("maximum drawdown", percent(mine["max_drawdown"])),
    ]
    if metrics["nulls"]["p_value"] is not None:
        rows.append((f"p-value against {metrics['nulls']['books']:,} null books", f"{metrics['nulls']['p_value']:.3f}"))
    for hold, found in metrics["hold"].items():
        rows.append((f"total return with HOLD = {hold}", percent(found["total_return"])))
    for name, found in metrics["benchmarks"].items():
        rows.append((f"total return of {name}", percent(found["total_return"])))
    return rows
