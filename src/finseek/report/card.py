"""The model card: README.md beside an exported checkpoint, with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from finseek.report import instruction
from finseek.report.figures import Figures, read_figures
from finseek.report.gates import judge_gates
from finseek.report.inputs import ReportInputs
from finseek.report.numbers import (
    ABSENT,
    integer,
    interval,
    number2,
    percent,
    short_hash,
    signed_percent,
    signed_points,
)
from finseek.report.sections.run import in_words, lookup
from finseek.report.verdict import give_verdict

_LIMITS = """\
- It imitates the teacher of its theses; that a teacher's opinion is reproduced does not make the opinion right.
- Its prompt must be made by the same snapshot code and its answer read by the same parser; other prompts are untested.
- The backtest is a simulation with assumed fees and slippage. It is no advice, and no promise of returns.
"""

_INSTRUCTION_LIMITS = """\
- It was tested on rows of the source that it was trained on; other questions are untested.
- Nothing here says what it knows of markets. It is no advice, and no promise of returns.
"""
_DOES = {False: "reads a market snapshot and answers with one of five actions", True: "answers instructions"}
_PARTS = (("training", "train"), ("validation", "validation"))


def model_card(inputs: ReportInputs) -> str:
    """Markdown with YAML metadata for the checkpoint of a run.

    It states no licence: that of the weights depends on the theses and on the checkpoint that training started from,
    which only their owner knows.
    """
    figures, alone = read_figures(inputs), bool(inputs.config.get("instruct"))
    gates = instruction.gates(inputs) if alone else judge_gates(inputs, figures)
    verdict = instruction.verdict(inputs, gates) if alone else give_verdict(figures, gates)
    name = str(inputs.run.get("name", "run"))
    metadata = yaml.safe_dump(_metadata(name, inputs, figures), sort_keys=False, allow_unicode=True)
    origin = lookup(inputs.config, "model.path") or f"preset {lookup(inputs.config, 'model.preset')}, random weights"
    dates = inputs.certificate["splits"] if inputs.certificate else {}
    made_of = inputs.instruction["samples"] if alone and inputs.instruction else {}
    told = [
        f"---\n{metadata}---\n\n# {_plain(name)}\n",
        f"A language model that {_DOES[alone]}, trained by finseek {_plain(lookup(inputs.run, 'code.version'))}.\n",
        f"**{_plain(verdict.headline)}**\n",
        "\n".join(f"- {_plain(sentence)}" for sentence in verdict.sentences) + "\n",
        "## Training\n",
        _table(
            ("", ""),
            [
                ("started from", in_words(origin)),
                *(
                    [(f"{split} conversations", integer(count)) for split, count in made_of.items()]
                    if alone
                    else [(f"{part} theses", _span(dates.get(key))) for part, key in _PARTS]
                ),
                ("steps", integer(inputs.train_log[-1].get("step")) if inputs.train_log else ABSENT),
                ("tokens", integer(inputs.train_log[-1].get("tokens")) if inputs.train_log else ABSENT),
                ("seed", in_words(inputs.run.get("seed"))),
                ("code", short_hash(lookup(inputs.run, "code.git_commit"))),
            ],
        ),
        "## Evaluation\n",
        f"On {_span(dates.get('test'))}, all after the last day of training.\n" if dates else "",
        _table(("measure", "value", figures.interval), instruction.measures(inputs) if alone else _measures(figures)),
        "## Gates\n",
        _table(("gate", "result", "reason"), [(gate.title, _RESULTS[gate.light], gate.reason) for gate in gates]),
        f"## Limits\n\n{_INSTRUCTION_LIMITS if alone else _LIMITS}",
    ]
    return "\n".join(told)


_RESULTS = {"pass": "passed", "caution": "caution", "fail": "failed", "skipped": "not run"}


def _metadata(name: str, inputs: ReportInputs, figures: Figures) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["finance", "finseek"],
    }
    origin = lookup(inputs.config, "model.path")
    if origin:
        metadata["base_model"] = str(origin).rstrip("/").rpartition("/")[2]
    if figures.accuracy.value is not None:
        result = {
            "task": {"type": "text-generation", "name": "action of a dated thesis"},
            "dataset": {"type": "private", "name": "theses of the test split"},
            "metrics": [{"type": "accuracy", "value": round(figures.accuracy.value, 4)}],
        }
        metadata["model-index"] = [{"name": name, "results": [result]}]
    return metadata


def _span(part: Any) -> str:
    if not part or not part.get("count"):
        return "no theses"
    return f"{integer(part['count'])} theses, {part['first_as_of_date']} to {part['last_as_of_date']}"


def _measures(figures: Figures) -> list[tuple[str, str, str]]:
    accuracy, excess, mine = figures.accuracy, figures.excess, figures.strategy or {}
    rows = [("accuracy", percent(accuracy.value), interval(accuracy.low, accuracy.high, percent))]
    for baseline in figures.baselines:
        difference = baseline.difference
        bounds = interval(difference.low, difference.high, signed_points)
        rows.append((f"less {baseline.name}, percentage points", signed_points(difference.value), bounds))
    rows.append(("total return of the account", signed_percent(mine.get("total_return")), ABSENT))
    rows.append(("Sharpe of the account", number2(mine.get("sharpe")), ABSENT))
    bounds = interval(excess.low, excess.high, signed_percent)
    rows.append(("return a year beyond its exposure", signed_percent(excess.value), bounds))
    return rows


def _plain(value: Any) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = " ".join(in_words(value).split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in text)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(map(_plain, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
