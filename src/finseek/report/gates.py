"""Traffic lights: what has to hold before the figures may be believed. A gate that was not run is red."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finseek.report.blocks import Gate, Light
from finseek.report.figures import Figures
from finseek.report.inputs import ReportInputs
from finseek.report.numbers import basis_points, finite, integer, percent, plural, share

Ruling = tuple[Light, str]

LEAST_COVERAGE = 0.99
LOW_COVERAGE = 0.90
AUDIT_LIGHTS: dict[str, Light] = {"passed": "pass", "caution": "caution", "failed": "fail", "not run": "skipped"}


def _split(inputs: ReportInputs, figures: Figures) -> Ruling:
    certificate = inputs.certificate
    if certificate is None:
        return "skipped", "There is no split certificate."
    disjoint = certificate.get("labels_disjoint")
    if disjoint is None:
        return "skipped", "Without trading sessions nobody can say where labels end."
    if not disjoint:
        pairs = ", ".join(
            f"{pair['earlier']} reaches into {pair['later']}"
            for pair in certificate["overlaps"]
            if not pair["disjoint"]
        )
        return "fail", f"Labels overlap: {pairs}. Set split.purge to true."
    return "pass", "Every label of an earlier split ends before the next one begins."


def _finding(name: str, missing: str) -> Callable[[ReportInputs, Figures], Ruling]:
    """A gate that repeats a finding of the audit."""

    def ruling(inputs: ReportInputs, figures: Figures) -> Ruling:
        found: Any = inputs.audit.get(name)
        if not found:
            return "skipped", missing
        return AUDIT_LIGHTS.get(found.get("status"), "skipped"), str(
            found.get("summary") or "The audit gives no reason."
        )

    return ruling


def _coverage(inputs: ReportInputs, figures: Figures) -> Ruling:
    # The test split counts, not what was asked: a run on a part of it must not look like a whole one.
    split = ((inputs.certificate or {}).get("kept") or {}).get("test")
    total = max(figures.rows or 0, split if isinstance(split, int) else 0)
    covered = share(figures.scored, total)
    if covered is None:
        return "skipped", "No predictions were scored."
    text = f"{integer(figures.scored)} of {plural(total, 'test row')} have a scored answer ({percent(covered)})."
    if figures.rows is not None and figures.rows < total:
        text += f" Only {integer(figures.rows)} were asked."
    return ("pass" if covered >= LEAST_COVERAGE else "caution" if covered >= LOW_COVERAGE else "fail"), text


def _costs(inputs: ReportInputs, figures: Figures) -> Ruling:
    options = inputs.config.get("backtest") or {}
    fee, slippage = finite(options.get("transaction_cost")), finite(options.get("slippage"))
    if figures.strategy is None or fee is None or slippage is None:
        return "skipped", "No account was simulated."
    if finite(figures.strategy.get("turnover_annual")) == 0:
        return "skipped", "The account never traded, so it paid nothing."
    if fee + slippage <= 0:
        return "fail", "The account trades for nothing: set backtest.transaction_cost and backtest.slippage."
    text = f"Every trade pays a fee of {basis_points(fee)} and slippage of {basis_points(slippage)}."
    if fee <= 0 or slippage <= 0:
        return "caution", f"{text} One of them is zero."
    return "pass", text


def _significance(inputs: ReportInputs, figures: Figures) -> Ruling:
    excess = figures.excess
    if not excess.bounded:
        return "skipped", "The excess over the exposure-matched universe has no interval."
    text = f"The {figures.interval} of the excess over the exposure-matched universe {_SAYS[excess.reading]}."
    light: Light = {"above zero": "pass", "below zero": "fail"}.get(excess.reading, "caution")  # type: ignore[assignment]
    return light, text


_SAYS = {
    "above zero": "lies above zero",
    "below zero": "lies below zero",
    "includes zero": "includes zero: skill and luck cannot be told apart here",
}


def _reproducibility(inputs: ReportInputs, figures: Figures) -> Ruling:
    code = inputs.run.get("code") or {}
    if not inputs.lineage or not inputs.lineage.get("artifacts"):
        return "skipped", "No hashes were recorded."
    if inputs.run.get("seed") is None:
        return "fail", "The run has no seed."
    hashed = plural(len(inputs.lineage["artifacts"]), "artifact")
    if code.get("git_dirty"):
        return "caution", f"{hashed} hashed, but the code had changes that no commit holds."
    if not code.get("git_commit") and not code.get("version"):
        return "caution", f"{hashed} hashed, but the version of the code is unknown."
    return "pass", f"{hashed}, config, code version and seed are recorded with their hashes."


GATES: tuple[tuple[str, str, Callable[[ReportInputs, Figures], Ruling]], ...] = (
    ("split", "Split certificate", _split),
    ("leaks", "Leak audit", _finding("leaks", "No leak audit was run.")),
    ("coverage", "Coverage", _coverage),
    (
        "contamination",
        "Contamination",
        _finding("contamination", "What the model may already have read was not checked."),
    ),
    ("costs", "Costs", _costs),
    ("significance", "Significance", _significance),
    ("reproducibility", "Reproducibility", _reproducibility),
)


def judge_gates(inputs: ReportInputs, figures: Figures) -> list[Gate]:
    """All gates, in the order of the page."""
    return [Gate(key, title, *ruling(inputs, figures)) for key, title, ruling in GATES]
