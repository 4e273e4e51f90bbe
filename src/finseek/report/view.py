"""From the artifacts of a run to the view model of its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finseek.report import instruction
from finseek.report.blocks import Gate, Section
from finseek.report.figures import Figures
from finseek.report.gates import judge_gates
from finseek.report.inputs import ReportInputs
from finseek.report.sections import backtest, data, lineage, predictions, run, statistics, training
from finseek.report.sections.run import in_words
from finseek.report.verdict import Verdict, give_verdict


@dataclass(frozen=True)
class Page:
    """Everything that the template draws, as text and plain values."""

    title: str
    kind: str
    name: str
    meta: str
    verdict: Verdict
    gates: Sequence[Gate]
    sections: Sequence[Section]
    foot: str


def build_page(inputs: ReportInputs, figures: Figures) -> Page:
    """The page of one run."""
    alone = bool(inputs.config.get("instruct"))
    gates = instruction.gates(inputs) if alone else judge_gates(inputs, figures)
    name = str(inputs.run.get("name", "run"))
    certificate = inputs.certificate or {}
    test = (certificate.get("splits") or {}).get("test") or {}
    first, last = test.get("first_as_of_date"), test.get("last_as_of_date")
    span = f"test {first} to {last}" if first else "instruction data" if alone else "no test split"
    version = (inputs.run.get("code") or {}).get("version")
    return Page(
        title=f"{name} – finseek report",
        kind="finseek report",
        name=name,
        meta=f"{span} · seed {in_words(inputs.run.get('seed'))} · finseek {in_words(version)}",
        verdict=instruction.verdict(inputs, gates) if alone else give_verdict(figures, gates),
        gates=gates,
        sections=instruction.sections(inputs)
        if alone
        else [
            run.section(inputs),
            data.section(inputs),
            training.section(inputs),
            predictions.section(inputs, figures),
            backtest.section(inputs, figures),
            statistics.section(inputs, figures),
            lineage.section(inputs),
        ],
        foot="Simulated results say nothing certain about the future. report.json holds these figures for machines.",
    )
