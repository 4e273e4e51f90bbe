"""From a thesis to the prompt and the answer.

The prompt holds what was known as of t and nothing of the answer: the ticker, the snapshot of the market, the
ticker's earlier actions, and the indicators that the options name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import groupby
from typing import Protocol

from finseek.core.actions import Action, Labelled
from finseek.core.errors import InputError
from finseek.samples.options import PromptOptions
from finseek.samples.records import Sample
from finseek.theses.records import Thesis

NO_ACTION = "none"


class SnapshotText(Protocol):
    """The market as of a session, in words; ``finseek.market.snapshots`` returns one."""

    def text(self, ticker: str, as_of_date: date) -> str:
        """The words of the prompt; InputError where the ticker has no bar at that session."""


class History:
    """The actions of each ticker by date; answers only with what is earlier than the day that is asked for."""

    def __init__(self, theses: Iterable[Labelled]) -> None:
        known = sorted((thesis.ticker, thesis.as_of_date, thesis.action) for thesis in theses)
        self._by_ticker: Mapping[str, tuple[list[date], list[Action]]] = {
            ticker: ([day for _, day, _ in rows], [action for _, _, action in rows])
            for ticker, group in groupby(known, key=lambda row: row[0])
            for rows in [list(group)]
        }

    def last(self, ticker: str, before: date, count: int) -> list[Action | None]:
        """The ``count`` actions before a day, the latest first, None where there were fewer."""
        days, actions = self._by_ticker.get(ticker, ([], []))
        end = bisect_left(days, before)
        latest: list[Action | None] = list(reversed(actions[max(0, end - count) : end]))
        return latest + [None] * (count - len(latest))


def build_samples(
    theses: Iterable[Thesis],
    snapshots: SnapshotText | None,
    options: PromptOptions,
    *,
    split: str,
    history: Iterable[Labelled] | History = (),
) -> list[Sample]:
    """One sample a thesis, in their order.

    Args:
        theses: of one split.
        snapshots: the market, or None for prompts without it.
        options: what is shown.
        split: goes into the metadata.
        history: every thesis of the run, for ``last_actions``; only what is dated before a thesis enters its prompt.

    Raises:
        InputError: a ticker has no bar at a session, or a thesis lacks an indicator that the options name.
    """
    return list(iterate_built(theses, snapshots, options, split=split, history=history))


def iterate_built(
    theses: Iterable[Thesis],
    snapshots: SnapshotText | None,
    options: PromptOptions,
    *,
    split: str,
    history: Iterable[Labelled] | History = (),
) -> Iterator[Sample]:
    """As :func:`build_samples`, one by one."""
    known = history if isinstance(history, History) else History(history if options.last_actions else ())
    for thesis in theses:
        output, span = build_answer(thesis, options)
        metadata = {
            "uid": thesis.uid,
            "ticker": thesis.ticker,
            "as_of_date": thesis.as_of_date.isoformat(),
            "action": str(thesis.action),
            "split": split,
            "action_span": span,
        }
        yield Sample(build_prompt(thesis, snapshots, options, known), output, metadata)


def build_prompt(thesis: Thesis, snapshots: SnapshotText | None, options: PromptOptions, history: History) -> str:
    """The user's message for one thesis; the texts and the action of the thesis have no way into it."""
    instruction = options.instruction if thesis.instruction is None else thesis.instruction
    words = []
    if options.ticker:
        words.append(f"ticker={thesis.ticker}")
    if options.as_of_date:
        words.append(f"as_of={thesis.as_of_date.isoformat()}")
    if options.last_actions:
        for back, action in enumerate(history.last(thesis.ticker, thesis.as_of_date, options.last_actions), 1):
            words.append(f"last_action_{back}={action or NO_ACTION}")
    for name in options.indicators:
        if name not in thesis.indicators:
            raise InputError(
                f"thesis {thesis.ticker} {thesis.as_of_date} has no indicator {name!r}, which prompt.indicators names: "
                f"it has {', '.join(sorted(thesis.indicators)) or 'none'}"
            )
        words.append(f"{name}={thesis.indicators[name].strip()}")
    market = snapshots.text(thesis.ticker, thesis.as_of_date) if snapshots is not None else ""
    return "\n".join(filter(None, (instruction, thesis.input, " ".join(words), market)))


def build_answer(thesis: Thesis, options: PromptOptions) -> tuple[str, list[int] | None]:
    """The assistant's answer and where in it the action with its closing tag lies, [start, end) in characters."""
    if thesis.output is not None:
        return thesis.output, None
    bodies = {
        "action": str(thesis.action),
        "reasoning": shortened(thesis.reasoning, options.max_reasoning_chars),
        "support": shortened(thesis.support, options.max_support_chars),
    }
    return tagged([(part, bodies[part]) for part in options.answer_order])


def tagged(parts: Sequence[tuple[str, str]]) -> tuple[str, list[int] | None]:
    """Parts as ``<tag>body</tag>`` lines, and the span of the action's body and closing tag."""
    lines, span, start = [], None, 0
    for tag, body in parts:
        line = f"<{tag}>{body}</{tag}>"
        if tag == "action":
            span = [start + len(tag) + 2, start + len(line)]
        lines.append(line)
        start += len(line) + 1
    return "\n".join(lines), span


def shortened(text: str, limit: int | None) -> str:
    """The text up to the last whole word within a limit; a first word longer than the limit is cut."""
    if limit is None or len(text) <= limit:
        return text
    head = text[:limit]
    if text[limit].isspace():
        return head.rstrip()
    whole, space, _ = head.rpartition(" ")
    return whole.rstrip() if space and whole.strip() else head
