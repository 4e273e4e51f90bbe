"""The page of a run that learned from instruction data alone: no market, so nothing is said of trading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finseek.report.blocks import Block, Facts, Gate, Light, Notice, Section, Table
from finseek.report.figures import Estimate
from finseek.report.inputs import Json, ReportInputs
from finseek.report.numbers import ABSENT, GLUE, integer, interval, number2, number3, percent, plural
from finseek.report.sections import lineage, run, training
from finseek.report.verdict import Verdict

BASELINES = {
    "token_frequencies": "a guess by the frequency of tokens",
    "before_training": "the checkpoint before training",
}


def gates(inputs: ReportInputs) -> list[Gate]:
    """What has to hold before the figures may be believed."""
    return [_split_gate(inputs), *_improvement_gates(inputs), _written_gate(inputs)]


def verdict(inputs: ReportInputs, judged: Sequence[Gate]) -> Verdict:
    """What the held-out answers allow to say."""
    found = inputs.evaluation or {}
    if not found:
        return Verdict("The answers were not evaluated.", ["Nothing is known of the model."], "skipped")
    loss, compared = Estimate.read(found.get("loss")), _improvements(found)
    best = [name for name, estimate in compared.items() if estimate.reading == "above zero"]
    worse = [name for name in compared if name not in best]
    light: Light = "pass" if not worse else "caution" if best else "fail"
    against = " and ".join(BASELINES[name] for name in (worse or best))
    headline = f"Answers instructions {'no better than' if worse else 'better than'} {against}."
    told = [
        f"The answers of {plural(found['rows']['total'], 'held-out conversation')} surprise the model by "
        f"{number3(loss.value)} nats a token ({100 * found['level']:g}{GLUE}% interval "
        f"{interval(loss.low, loss.high, number3)}), a perplexity of {number2(found.get('perplexity'))}.",
        *(
            f"Against {BASELINES[name]}: {number3(each.value)} nats a token less "
            f"({interval(each.low, each.high, number3)})."
            for name, each in compared.items()
        ),
        "This run had no market: it says nothing of trading.",
    ]
    red = [gate.title.lower() for gate in judged if gate.light in ("fail", "skipped")]
    told.append(f"Red gates: {', '.join(red)}." if red else "No gate is red.")
    return Verdict(headline, told, "caution" if light == "pass" and red else light)


def measures(inputs: ReportInputs) -> list[tuple[str, str, str]]:
    """Value and bounds of what the model card quotes."""
    found = inputs.evaluation or {}
    loss = Estimate.read(found.get("loss"))
    rows = [("nats a token of held-out answers", number3(loss.value), interval(loss.low, loss.high, number3))]
    for name, each in _improvements(found).items():
        rows.append((f"less than {BASELINES[name]}", number3(each.value), interval(each.low, each.high, number3)))
    return rows


def sections(inputs: ReportInputs) -> list[Section]:
    """The parts of the page."""
    return [run.section(inputs), _data(inputs), training.section(inputs), _answers(inputs), lineage.section(inputs)]


def _improvements(found: Json) -> dict[str, Estimate]:
    return {name: Estimate.read(each["improvement"]) for name, each in (found.get("baselines") or {}).items()}


def _split_gate(inputs: ReportInputs) -> Gate:
    title = "No prompt in two splits"
    if inputs.instruction is None:
        return Gate("split", title, "skipped", "The instruction data was not read.")
    return Gate("split", title, "pass", "A hash of the prompt chose its split before rows were joined.")


def _improvement_gates(inputs: ReportInputs) -> list[Gate]:
    rulings: dict[str, tuple[Light, str]] = {
        "above zero": ("pass", "lies above zero"),
        "below zero": ("fail", "lies below zero"),
    }
    made = []
    for name, estimate in _improvements(inputs.evaluation or {}).items():
        light, says = rulings.get(estimate.reading, ("caution", "reaches across zero"))
        bounds = interval(estimate.low, estimate.high, number3)
        title = f"Better than {BASELINES[name]}"
        made.append(Gate(name, title, light, f"The interval of the difference, {bounds} nats a token, {says}."))
    return made


def _written_gate(inputs: ReportInputs) -> Gate:
    summary = inputs.instruction or {}
    found, kept, rejected = (summary.get(name) for name in ("found", "kept", "rejected"))
    light: Light = "pass" if found is not None and found == (kept or 0) + (rejected or 0) else "fail"
    text = f"{integer(found)} rows came in, {integer(kept)} were kept, {integer(rejected)} rejected with a reason."
    return Gate("counts", "Every row accounted for", light, text)


def _data(inputs: ReportInputs) -> Section:
    lead = "Rows became prompts and answers, were split by their prompt, and then joined to conversations."
    summary = inputs.instruction
    if summary is None:
        return Section("data", "Instruction data", lead, [Notice("No instruction data was read in this run.")])
    facts = Facts(
        [
            ("Rows found", integer(summary.get("found")), "in the source"),
            ("Kept", integer(summary.get("kept")), "with a prompt and an answer"),
            ("Rejected", integer(summary.get("rejected")), "each with its reason, in samples/rejects.jsonl"),
        ]
    )
    reasons = [[str(key).replace("_", " "), integer(n)] for key, n in (summary.get("rejected_by_reason") or {}).items()]
    left = (summary.get("conversations_left_out") or {}).get("prompt_too_long") or {}
    rows = [[split, integer(count), integer(left.get(split))] for split, count in summary["samples"].items()]
    blocks: list[Block] = [
        facts,
        Table(
            "Conversations",
            "What training learned, what chose the checkpoint, and what the model was tested on.",
            ["Split", "Conversations", "Left out: prompt longer than instruct.max_tokens"],
            rows,
        ),
    ]
    if reasons:
        blocks.append(Table("Rejected rows by reason", "Nothing is dropped silently.", ["Reason", "Rows"], reasons))
    return Section("data", "Instruction data", lead, blocks)


def _answers(inputs: ReportInputs) -> Section:
    lead = "How surprised the model is by the reference answers of prompts that it never saw (nats a token)."
    found = inputs.evaluation
    if not found:
        return Section("answers", "Held-out answers", lead, [Notice("No answers were evaluated in this run.")])
    loss = Estimate.read(found.get("loss"))
    rows: list[list[str]] = [["the model", number3(loss.value), ABSENT]]
    for name, each in _improvements(found).items():
        theirs = found["baselines"][name]["loss"]
        bounds = f"{number3(each.value)} ({interval(each.low, each.high, number3)})"
        rows.append([BASELINES[name], number3(theirs), bounds])
    blocks: list[Block] = [
        Table(
            "Loss of the reference answers",
            "Lower is better; the last column is how many nats a token the model is ahead, with its interval.",
            ["Predictor", "Nats a token", "Model ahead by"],
            rows,
        )
    ]
    text: Any = found.get("text")
    if text:
        facts = [
            ("Exact answers", percent(text.get("exact_match")), "equal to the reference but for white space"),
            ("ROUGE-L", number3(text.get("rouge_l")), f"on {integer(text.get('compared_rows'))} rows"),
            ("chrF", number3(text.get("chrf")), "on the same rows"),
        ]
        blocks.append(Facts(facts))
    left_out = found.get("baselines_left_out") or {}
    blocks += [Notice(f"Left out: {BASELINES[name]}, because {reason}.") for name, reason in left_out.items()]
    return Section("answers", "Held-out answers", lead, blocks)
