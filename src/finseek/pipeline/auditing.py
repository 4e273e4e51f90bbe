"""The stage that looks for what would make the figures worthless: leaks of time and of text, and what a model knew."""

from __future__ import annotations

from typing import Any

import msgspec

from finseek.core.artifacts import write_json, write_lines
from finseek.pipeline.data import run_prices
from finseek.pipeline.stages import StageContext

FLAGGED_SHARE = 0.01
PARTS = {"inside": "up to the cutoff", "after": "after it"}
LIGHTS = {"green": "passed", "amber": "caution", "red": "failed"}


def audit_the_run(context: StageContext) -> dict[str, Any]:
    """Stage ``audit``: near-duplicates between splits, hindsight in the texts, the model's knowledge cutoff."""
    leaks, counts = _leaks(context)
    write_json(context.paths.audit / "leaks.json", leaks)
    write_json(context.paths.audit / "contamination.json", _contamination(context))
    return counts


def _leaks(context: StageContext) -> tuple[dict[str, Any], dict[str, int]]:
    from finseek.audit.hindsight import HindsightOptions, known_to_teacher, lint_hindsight, summarize
    from finseek.audit.splits import near_duplicate_findings
    from finseek.theses import load_split

    config, paths = context.config, context.paths
    splits = {name: load_split(paths.split / f"{name}.parquet") for name in ("train", "validation", "test")}
    everything = [thesis for part in splits.values() for thesis in part]
    hindsight_options = HindsightOptions(teacher_cutoff=config.theses.teacher_cutoff)
    findings = lint_hindsight(everything, run_prices(context), hindsight_options)
    marked = [*findings, *known_to_teacher(everything, config.theses.teacher_cutoff)]
    write_lines(paths.audit / "hindsight.jsonl", (msgspec.json.encode(finding) for finding in marked))
    hindsight = summarize(findings, everything, hindsight_options)
    duplicates = near_duplicate_findings(splits, config.audit.near_duplicate_threshold, context.progress)
    across = sum(count for pair, count in duplicates["counts"].items() if len(set(pair.split("/"))) > 1)
    share = hindsight["flagged"] / max(hindsight["theses"], 1)
    status = "failed" if across or share > FLAGGED_SHARE else "caution" if hindsight["flagged"] else "passed"
    summary = (
        f"{across:,} pairs of nearly equal theses in different splits (similarity at least "
        f"{duplicates['threshold']}); {hindsight['flagged']:,} of {hindsight['theses']:,} theses name a later date or "
        "a price first seen later."
    )
    known = hindsight["as_of_teacher_cutoff_or_before"]
    if known:
        status = "caution" if status == "passed" else status
        summary += (
            f" {known:,} theses are as of {hindsight['teacher_cutoff']} or before, which their teacher may have known."
        )
    counts = {"near_duplicate_pairs": across, "theses_with_hindsight": hindsight["flagged"]}
    return {"status": status, "summary": summary, "near_duplicates": duplicates, "hindsight": hindsight}, counts


def _contamination(context: StageContext) -> dict[str, Any]:
    from finseek.audit.cutoff import knowledge_gate, split_at_cutoff
    from finseek.evaluate import read_predictions, score_predictions

    config, model = context.config, context.config.model
    served = config.evaluate.backend == "openai"
    cutoff = config.evaluate.openai.knowledge_cutoff if served else model.knowledge_cutoff if model else None
    rows = read_predictions(context.paths.evaluate / "eval_results.csv")
    gate = knowledge_gate(rows, cutoff, served or bool(model and model.path))
    parts: dict[str, Any] = {}
    if cutoff and gate["inside"] and gate["after"]:
        for name, part in zip(("inside", "after"), split_at_cutoff(rows, cutoff), strict=True):
            scores = score_predictions(part, run_prices(context), config.evaluate, seed=config.run.seed).to_json()
            parts[name] = {key: scores[key] for key in ("rows", "classification", "financial")}
    told = [f"{gate['says'][:1].upper()}{gate['says'][1:]}"]
    told += [
        f"accuracy {_accuracy(part)} on the {part['rows']['sessions']} sessions {PARTS[name]}"
        for name, part in parts.items()
    ]
    return {"status": LIGHTS[gate["gate"]], "summary": f"{'; '.join(told)}.", **gate, "parts": parts}


def _accuracy(part: dict[str, Any]) -> str:
    found = part["classification"]["all"]["accuracy"]
    if found["low"] is None:
        return f"{found['value']:.3f} (no interval)"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
