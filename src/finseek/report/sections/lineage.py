"""Which file came from which, with hashes that anybody can recompute."""

from __future__ import annotations

from finseek.report.blocks import Block, Notice, Section, Table
from finseek.report.inputs import ReportInputs
from finseek.report.numbers import integer

LEAD = (
    "Every file that went in and came out, with its SHA-256; finseek manifest verify recomputes them all and "
    "names each file that differs."
)


def section(inputs: ReportInputs) -> Section:
    """Hashes of inputs and artifacts."""
    lineage = inputs.lineage
    if not lineage:
        return Section("lineage", "Lineage", LEAD, [Notice("No hashes: this report was not made by a recorded run.")])
    columns = ["File", "Stage", "Bytes", "SHA-256"]
    read = [
        [name, "input", integer(file.get("bytes")), str(file.get("sha256"))]
        for name, file in lineage.get("inputs", {}).items()
    ]
    made = [
        [name, str(file.get("stage", "")), integer(file.get("bytes")), str(file.get("sha256"))]
        for name, file in lineage.get("artifacts", {}).items()
    ]
    text, mono = frozenset({0, 1, 3}), frozenset({3})
    blocks: list[Block] = [
        Table("Inputs", "Files from outside the run folder.", columns, read, text, mono),
        Table("Artifacts", "Files that the run made, by the stage that made them.", columns, made, text, mono),
    ]
    return Section("lineage", "Lineage", LEAD, blocks)
