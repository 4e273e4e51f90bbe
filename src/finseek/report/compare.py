"""Several runs on one page, from their report.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finseek.core.errors import InputError
from finseek.report.blocks import Block, Light, Notice, Section, Table
from finseek.report.charts import Line, chart, intervals
from finseek.report.figures import Estimate
from finseek.report.html import render
from finseek.report.inputs import Json
from finseek.report.numbers import (
    Format,
    finite,
    integer,
    number2,
    number3,
    percent,
    plural,
    signed_percent,
    signed_percent2,
    signed_points,
)
from finseek.report.report import FORMAT
from finseek.report.sections.run import lookup
from finseek.report.verdict import Verdict
from finseek.report.view import Page

_WORDS: dict[str, str] = {"pass": "passed", "caution": "caution", "fail": "failed", "skipped": "not run"}
_MEASURES: tuple[tuple[str, str, Format, str], ...] = (
    ("predictions.accuracy.value", "Accuracy", percent, "share of the teacher's actions reproduced"),
    ("predictions.macro_f1", "Macro F1", number3, "mean over the actions of how well each is found"),
    ("predictions.scored", "Scored rows", integer, "test rows with an answer that could be read"),
    ("backtest.accounts.strategy.total_return", "Total return", signed_percent, "of the account, costs paid"),
    ("backtest.accounts.buy_and_hold.total_return", "Buy-and-hold", signed_percent, "the same universe, merely held"),
    ("backtest.accounts.strategy.sharpe", "Sharpe", number2, "of the account, annual"),
    ("backtest.accounts.strategy.max_drawdown", "Largest drawdown", percent, "deepest fall from a highest close"),
    ("backtest.accounts.strategy.costs_of_capital", "Costs", percent, "fees and slippage, of the starting capital"),
    ("backtest.smallest_detectable_sharpe", "Smallest detectable Sharpe", number2, "below it the sample shows nothing"),
    ("training.best_validation_loss", "Best validation loss", number3, "nats per token"),
    ("training.tokens", "Training tokens", integer, "read in training, repeats included"),
    ("training.seconds", "Training seconds", integer, "on the run's own machine"),
    ("trials", "Trials", integer, "looks at the test data when the report was made"),
)


def compare_reports(reports: Mapping[str, Json]) -> str:
    """One self-contained page that sets runs side by side.

    Args:
        reports: report.json of each run by the label that the page gives it, at least two.

    Raises:
        InputError: fewer than two runs, or one whose format is not this version's.
    """
    if len(reports) < 2:
        raise InputError(f"a comparison needs at least two runs, not {len(reports)}: name more run folders")
    for label, report in reports.items():
        if report.get("format") != FORMAT:
            raise InputError(
                f"the report of {label} has format {report.get('format')!r}, this version reads {FORMAT}: "
                "make it again with `finseek report`"
            )
    same_test = len({lookup(report, "split.test_uids_sha256") for report in reports.values()}) == 1
    return render(
        Page(
            title=f"{plural(len(reports), 'run')} – finseek comparison",
            kind="finseek comparison",
            name=", ".join(reports),
            meta=f"{plural(len(reports), 'run')} side by side",
            verdict=_verdict(reports, same_test),
            gates=[],
            sections=[_figures(reports), _gates(reports), _intervals(reports), _equity(reports)],
            foot="Made from the report.json of each run; open their own reports for the reasons behind a figure.",
        )
    )


def _verdict(reports: Mapping[str, Json], same_test: bool) -> Verdict:
    ahead = [label for label, report in reports.items() if _excess(report).reading == "above zero"]
    headline = (
        f"{', '.join(ahead)}: more return than the exposure explains, before any correction for choosing."
        if ahead
        else "No run earns more than its exposure to the market explains."
    )
    told = [f"{label}: {report['verdict']['headline']}" for label, report in reports.items()]
    told.append(
        "All runs are judged on the same test theses."
        if same_test
        else "The runs are judged on different test theses, so their figures are not comparable."
    )
    told.append(
        f"Choosing the best of {integer(len(reports))} runs by these figures is a choice made on the test data: "
        "its figures are then too good."
    )
    light: Light = "fail" if not same_test else "caution"
    return Verdict(headline, told, light)


def _excess(report: Json) -> Estimate:
    return Estimate.read(lookup(report, "backtest.excess"))


def _figures(reports: Mapping[str, Json]) -> Section:
    rows = [
        [title, *(shown(lookup(report, key)) for report in reports.values()), meaning]
        for key, title, shown, meaning in _MEASURES
        if any(finite(lookup(report, key)) is not None for report in reports.values())
    ]
    table = Table(
        "Figures of each run",
        "One column a run; a dash means that the run has no such figure.",
        ["Measure", *reports, "Meaning"],
        rows,
        text=frozenset({0, len(reports) + 1}),
    )
    return Section("figures", "Figures", "The headline figures beside one another.", [table])


def _gates(reports: Mapping[str, Json]) -> Section:
    titles = {gate["key"]: gate["title"] for report in reports.values() for gate in report["gates"]}
    lights = {label: {gate["key"]: gate["light"] for gate in report["gates"]} for label, report in reports.items()}
    table = Table(
        "Gates of each run",
        "What has to hold before figures may be believed; failed and not run are both red.",
        ["Gate", *reports],
        [[title, *(_WORDS[lights[label].get(key, "skipped")] for label in reports)] for key, title in titles.items()],
        text=frozenset(range(len(reports) + 1)),
    )
    return Section("gates", "Gates", "Which checks each run passed.", [table])


def _intervals(reports: Mapping[str, Json]) -> Section:
    blocks: list[Block] = [
        intervals(
            "Return a year beyond what the exposure to the market earned",
            "A run shows skill only if its whole interval lies right of the dashed zero.",
            "Run",
            [_row(label, _excess(report)) for label, report in reports.items()],
            signed_percent2,
        )
    ]
    names = dict.fromkeys(b["name"] for report in reports.values() for b in report["predictions"]["baselines"])
    for name in names:
        rows = [
            _row(label, Estimate.read(baseline["difference"]))
            for label, report in reports.items()
            for baseline in report["predictions"]["baselines"]
            if baseline["name"] == name
        ]
        explain = "In percentage points, paired on the same rows; right of the dashed zero the model is better."
        blocks.append(intervals(f"Accuracy less that of {name}", explain, "Run", rows, signed_points))
    return Section("intervals", "Intervals", "What each run's own interval allows to say.", blocks)


def _row(label: str, estimate: Estimate) -> tuple[str, float | None, float | None, float | None, str]:
    return label, estimate.value, estimate.low, estimate.high, estimate.reading


def _equity(reports: Mapping[str, Json]) -> Section:
    lead = "Each run's account since its first decision."
    curves = {label: _growth(report) for label, report in reports.items()}
    days = sorted({day for curve in curves.values() for day in curve})
    if not days:
        return Section("equity", "Equity", lead, [Notice("No run has an account.")])
    lines = [
        Line(label, [curve.get(day) for day in days], i % 6 + 1) for i, (label, curve) in enumerate(curves.items())
    ]
    picture = chart(
        "chart-equity",
        "Equity of each run",
        "Gain or loss since the first decision, at each close, costs paid.",
        list(map(float, range(len(days)))),
        days,
        lines,
        signed_percent,
        x_title="session",
        zero=True,
    )
    return Section("equity", "Equity", lead, [picture])


def _growth(report: Json) -> dict[str, Any]:
    table = lookup(report, "backtest.equity") or {"date": [], "equity": []}
    start = next((value for value in table["equity"] if value), None)
    pairs = zip(table["date"], table["equity"], strict=True)
    return {day: value / start - 1 for day, value in pairs if start and value is not None}
