"""What was run, with which settings, on what."""

from __future__ import annotations

from typing import Any

from finseek.report.blocks import Block, Facts, Section, Table
from finseek.report.inputs import ReportInputs
from finseek.report.numbers import ABSENT, finite, integer, moment, seconds, short_hash

_SETTINGS = (
    ("split.train_end", "last day that training may see"),
    ("split.validation_days", "calendar days before it that are held out of training"),
    ("split.test_start", "first day of the test"),
    ("split.label_horizon", "sessions until a decision's outcome is known"),
    ("prompt.answer_order", "whether the model answers first or reasons first"),
    ("model.preset", "architecture, trained from random weights"),
    ("model.path", "checkpoint that training started from"),
    ("train.engine", "program that trained"),
    ("train.keep", "which weights were kept: best on validation, or last"),
    ("evaluate.mode", "how an answer is read from the model"),
    ("backtest.hold", "what HOLD does with an open position"),
    ("backtest.shorts", "whether a SELL may open a short position"),
    ("backtest.sizing_strategy", "how much of the account a signal gets"),
    ("backtest.transaction_cost", "fee, as a fraction of what is traded"),
    ("backtest.slippage", "loss to the market's price at each fill, as a fraction"),
)


_OF_A_MARKET = frozenset(key for key, _ in _SETTINGS if key.startswith(("split.", "backtest.", "evaluate.mode")))


def lookup(tree: Any, dotted: str) -> Any:
    """A value of the config by its dotted key, None where it is absent."""
    for step in dotted.split("."):
        if not hasattr(tree, "get"):
            return None
        tree = tree.get(step)
    return tree


def in_words(value: Any) -> str:
    """A config value as text."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(in_words, value)) or "none"
    return str(value)


def section(inputs: ReportInputs) -> Section:
    """Settings, versions and the time of each stage."""
    run = inputs.run
    code, environment = run.get("code") or {}, run.get("environment") or {}
    packages = environment.get("packages") or {}
    dirty = {True: ", with changes that no commit holds", False: "", None: ""}[code.get("git_dirty")]
    facts = Facts(
        [
            ("Seed", in_words(run.get("seed")), "of everything random in the run"),
            ("finseek", in_words(code.get("version")), f"commit {short_hash(code.get('git_commit'))}{dirty}"),
            ("Python", in_words(environment.get("python")), in_words(environment.get("platform"))),
        ]
    )
    if run.get("finished"):
        facts.items.append(("Finished", moment(run["finished"]), "when this page was made"))
    rows = [
        [key, in_words(lookup(inputs.config, key)), why]
        for key, why in _SETTINGS
        if lookup(inputs.config, key) is not None and not (inputs.config.get("instruct") and key in _OF_A_MARKET)
    ]
    blocks: list[Block] = [facts]
    blocks.append(
        Table(
            "Settings that decide the figures",
            "The settings a reader needs in order to judge the figures; the manifest holds all of them.",
            ["Key", "Value", "Meaning"],
            rows,
            text=frozenset({0, 1, 2}),
            mono=frozenset({0, 1}),
        )
    )
    stages = run.get("stages") or {}
    if stages:
        timed = any(finite(record.get("seconds")) is not None for record in stages.values())
        blocks.append(
            Table(
                "Stages",
                "Each stage turns files into files, and its counts say what went through"
                + ("; its time is wall clock on the machine above." if timed else "."),
                ["Stage", *(["Time"] if timed else []), "Counts"],
                [
                    [
                        name,
                        *([seconds(record.get("seconds"))] if timed else []),
                        _counts(record.get("counts") or {}),
                    ]
                    for name, record in stages.items()
                ],
                text=frozenset({0, 1 + timed}),
            )
        )
    installed = [[name, str(version)] for name, version in packages.items() if version]
    if installed:
        blocks.append(
            Table(
                "Versions",
                "The packages whose version can change a figure.",
                ["Package", "Version"],
                installed,
                text=frozenset({0, 1}),
                folded=True,
            )
        )
    return Section("run", "What was run", "One configuration, from theses and prices to this page.", blocks)


def _counts(counts: dict[str, Any]) -> str:
    told = [
        f"best at step {integer(value)}" if name == "best_step" else f"{integer(value)} {name.replace('_', ' ')}"
        for name, value in counts.items()
        if isinstance(value, int)
    ]
    return ", ".join(told) or ABSENT
