"""The report of one run: the page for people, the figures for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from finseek.report.figures import Figures, read_figures
from finseek.report.html import render
from finseek.report.inputs import ReportInputs
from finseek.report.view import Page, build_page

FORMAT = 1


def build_report(inputs: ReportInputs) -> tuple[str, dict[str, Any]]:
    """The report of one run.

    Returns:
        report.html, one self-contained document, and report.json, plain data that fits ``report_schema()``.
    """
    figures = read_figures(inputs)
    page = build_page(inputs, figures)
    return render(page), report_data(inputs, figures, page)


def report_data(inputs: ReportInputs, figures: Figures, page: Page) -> dict[str, Any]:
    """The verdict, the gates and the headline figures as plain data; absence is null."""
    code = inputs.run.get("code") or {}
    return {
        "format": FORMAT,
        "run": {
            "name": inputs.run.get("name"),
            "seed": inputs.run.get("seed"),
            "version": code.get("version"),
            "git_commit": code.get("git_commit"),
        },
        "verdict": asdict(page.verdict),
        "gates": [asdict(gate) for gate in page.gates],
        "theses": {name: (inputs.theses or {}).get(name) for name in ("found", "kept", "rejected")},
        "split": {
            "kept": (inputs.certificate or {}).get("kept"),
            "labels_disjoint": (inputs.certificate or {}).get("labels_disjoint"),
        },
        "predictions": {
            "rows": figures.rows,
            "scored": figures.scored,
            "unscored": dict(figures.unscored),
            "accuracy": asdict(figures.accuracy),
            "macro_f1": figures.macro_f1,
            "bayes_accuracy": figures.bayes_accuracy,
            "baselines": [asdict(baseline) for baseline in figures.baselines],
        },
        "backtest": {
            "accounts": {account.name: dict(account.metrics) for account in figures.accounts},
            "excess": asdict(figures.excess),
            "sessions": figures.sessions,
            "smallest_detectable_sharpe": figures.smallest_sharpe,
        },
        "trials": figures.trials,
    }
