"""The report of one run: the page for people, the figures for machines."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finseek.report.figures import Figures, read_figures
from finseek.report.html import render
from finseek.report.inputs import ReportInputs
from finseek.report.numbers import finite
from finseek.report.sections.training import best_validation
from finseek.report.view import Page, build_page

FORMAT = 1


def build_report(inputs: ReportInputs) -> tuple[str, dict[str, Any]]:
    """The report of one run.

    Returns:
        report.html, one self-contained document, and report.json, plain data that fits ``report_schema()``.
    """
    figures = read_figures(inputs)
    page = build_page(inputs, figures)
    return render(page), _data(inputs, figures, page)


def report_schema() -> dict[str, Any]:
    """The JSON schema of report.json."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("report.schema.json").read_text("utf-8"))
    return schema


def _data(inputs: ReportInputs, figures: Figures, page: Page) -> dict[str, Any]:
    """The verdict, the gates and the headline figures as plain data; absence is null."""
    code, certificate = inputs.run.get("code") or {}, inputs.certificate or {}
    test = (certificate.get("splits") or {}).get("test") or {}
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
            "kept": certificate.get("kept"),
            "labels_disjoint": certificate.get("labels_disjoint"),
            "test_uids_sha256": test.get("uids_sha256"),
            "test_first": test.get("first_as_of_date"),
            "test_last": test.get("last_as_of_date"),
        },
        "training": _training(inputs),
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
            "accounts": {account.name: _numbers(account.metrics) for account in figures.accounts},
            "excess": asdict(figures.excess),
            "sessions": figures.sessions,
            "smallest_detectable_sharpe": figures.smallest_sharpe,
            "equity": {
                "date": [str(day) for day in (inputs.equity or {}).get("date", ())],
                "equity": [finite(value) for value in (inputs.equity or {}).get("equity", ())],
            },
        },
        "trials": figures.trials,
        "deflated_sharpe": figures.deflated,
        "instruction": _instruction(inputs),
    }


def _instruction(inputs: ReportInputs) -> dict[str, Any] | None:
    """Held-out answers of a run without a market; None for others."""
    found = inputs.evaluation or {}
    if found.get("kind") != "instruction":
        return None
    return {name: found[name] for name in ("answer_tokens", "loss", "perplexity", "baselines")}


def _training(inputs: ReportInputs) -> dict[str, float | None]:
    last = inputs.train_log[-1] if inputs.train_log else {}
    best = best_validation(inputs.train_log)
    return {
        "steps": finite(last.get("step")),
        "tokens": finite(last.get("tokens")),
        "seconds": finite(last.get("seconds")),
        "best_validation_loss": best[1] if best else None,
    }


def _numbers(metrics: Any) -> dict[str, float | None]:
    """The measures that are numbers or absent; an integer stays one."""
    return {name: value for name, value in metrics.items() if value is None or finite(value) is not None}
