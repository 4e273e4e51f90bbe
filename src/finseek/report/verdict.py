"""The verdict in plain words: what the figures allow to say, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finseek.report.blocks import Gate, Light
from finseek.report.figures import Estimate, Figures
from finseek.report.inputs import Json
from finseek.report.numbers import (
    Format,
    finite,
    interval,
    number2,
    percent,
    plural,
    signed_percent,
    signed_points,
)


@dataclass(frozen=True)
class Verdict:
    """One headline, the sentences that carry it, and its light."""

    headline: str
    sentences: list[str]
    light: Light


# What the interval of the excess says of the account.
_EXCESS = {
    "above zero": "Earns more than its exposure to the market explains",
    "includes zero": "Nothing to trade: not shown to earn more than its exposure to the market explains",
    "below zero": "Nothing to trade: earns less than its exposure to the market explains",
    "no interval": "Nothing is proven: the excess over its exposure to the market has no interval",
}
_HOLD = {"proven": "beats buy-and-hold", "ahead": "is not shown to beat buy-and-hold", "": "does not beat buy-and-hold"}


def _trades(figures: Figures) -> tuple[str, Light]:
    """What may be said of the trading, first sentence of the headline."""
    mine, hold, excess = figures.strategy, figures.account("buy_and_hold"), figures.excess
    if mine is None:
        return "No backtest was run", "skipped"
    if finite(mine.get("turnover_annual")) == 0:
        return "Nothing to trade: no answer opened a position", "fail"
    ahead = hold is not None and (mine.get("total_return") or 0.0) > (hold.get("total_return") or 0.0)
    proven = ahead and figures.over_holding.reading == "above zero"
    join = "but" if (excess.reading == "above zero") != proven else "and"
    light: Light = "fail"
    if excess.reading == "above zero":
        light = "pass" if ahead else "caution"
    elif not excess.bounded or (excess.reading == "includes zero" and ahead and (excess.value or 0.0) > 0):
        light = "caution"
    beside = _HOLD["proven" if proven else "ahead" if ahead else ""]
    return f"{_EXCESS[excess.reading]}, {join} {beside}", light


def _learned(figures: Figures) -> tuple[str, Light]:
    """What may be said of the predictions, second sentence of the headline."""
    if figures.accuracy.value is None:
        return "No predictions were scored", "skipped"
    if not figures.rivals:
        return "No baseline stands beside the predictions", "caution"
    beaten = [baseline for baseline in figures.rivals if baseline.difference.reading == "above zero"]
    if len(beaten) == len(figures.rivals):
        return f"The model predicts the teacher better than {_all_of(len(beaten))}", "pass"
    if beaten:
        return f"The model predicts the teacher better than {len(beaten)} of {len(figures.rivals)} baselines", "caution"
    return "The model predicts the teacher no better than the baselines", "fail"


def _all_of(count: int) -> str:
    return {1: "its one baseline", 2: "both baselines"}.get(count, f"all {count} baselines")


def _range(figures: Figures, estimate: Estimate, shown: Format) -> str:
    return f"{figures.interval} {shown(estimate.low)} to {shown(estimate.high)}, {_SAYS[estimate.reading]}"


_SAYS = {"above zero": "all above zero", "below zero": "all below zero", "includes zero": "which includes zero"}


def _gained(value: Any) -> str:
    """A return in words: earned or lost how much."""
    number = finite(value)
    return "has no return" if number is None else f"{'lost' if number < 0 else 'earned'} {percent(abs(number))}"


def _money(figures: Figures, mine: Json) -> str:
    hold, over = figures.account("buy_and_hold"), figures.over_holding
    invested = finite(mine.get("gross_exposure"))
    told = f"After costs the account {_gained(mine.get('total_return'))}"
    if invested is not None:
        told += f" with {percent(invested)} of it invested on average"
    if hold:
        told += f"; buy-and-hold of the same names {_gained(hold.get('total_return'))}"
    if over.bounded:
        told += f". Difference a year: {signed_percent(over.value)} ({_range(figures, over, signed_percent)})"
    return f"{told}."


def _rivals(figures: Figures) -> str:
    """Which baselines the model beats, and by how much it misses the others."""
    groups = {
        reading: [baseline for baseline in figures.rivals if baseline.difference.reading == reading]
        for reading in _AGAINST
    }
    told = []
    for reading, found in groups.items():
        if not found:
            continue
        near = min(found, key=lambda baseline: abs(baseline.difference.value or 0.0))
        points = f"{signed_points(near.difference.value)} percentage points"
        bounds = f"{signed_points(near.difference.low)} to {signed_points(near.difference.high)}"
        names = ", ".join(baseline.name for baseline in found)
        closest = f"the closest, {near.name}: " if len(found) > 1 else ""
        told.append(f"{_AGAINST[reading]} {names} ({closest}{points}, {figures.interval} {bounds})")
    return f"Its accuracy is {'; '.join(told)}."


_AGAINST = {
    "above zero": "better than that of",
    "includes zero": "not to be told apart from that of",
    "below zero": "worse than that of",
}


def sentences(figures: Figures, gates: Sequence[Gate]) -> list[str]:
    """The reasons behind the headline, most important first."""
    told = []
    mine, excess, accuracy = figures.strategy, figures.excess, figures.accuracy
    if mine is not None:
        told.append(_money(figures, mine))
    if excess.value is not None:
        bounds = f" ({_range(figures, excess, signed_percent)})" if excess.bounded else " (no interval)"
        told.append(f"Beyond what its exposure to the market gave: {signed_percent(excess.value)} a year{bounds}.")
    if figures.smallest_sharpe is not None:
        told.append(
            f"{plural(figures.sessions or 0, 'session')} can only show an annual Sharpe above "
            f"{number2(figures.smallest_sharpe)}; this account's is {number2(mine.get('sharpe') if mine else None)}."
        )
    if accuracy.value is not None:
        bounds = f" ({figures.interval} {interval(accuracy.low, accuracy.high, percent)})" if accuracy.bounded else ""
        told.append(
            f"The model gives the teacher's action in {percent(accuracy.value)} of "
            f"{plural(figures.rows or 0, 'test row')}{bounds}"
            f"{', unscored answers counted as wrong' if figures.unscored else ''}."
        )
    if any(baseline.difference.bounded for baseline in figures.rivals):
        told.append(_rivals(figures))
    if figures.trials is None:
        told.append("The number of trials on this test data was not recorded, so no figure here is corrected for it.")
    elif figures.trials == 1:
        told.append("This is the first trial on this test data; each further one makes a lucky best more likely.")
    else:
        told.append(
            f"{plural(figures.trials, 'trial')} on this test data so far: the more trials, the more likely that the "
            "best one was luck."
        )
    red, amber = _titles(gates, "fail", "skipped"), _titles(gates, "caution")
    told.append(f"{f'Red gates: {red}' if red else 'No gate is red'}{f'; caution: {amber}' if amber else ''}.")
    return told


def _titles(gates: Sequence[Gate], *lights: Light) -> str:
    return ", ".join(gate.title.lower() for gate in gates if gate.light in lights)


def give_verdict(figures: Figures, gates: Sequence[Gate]) -> Verdict:
    """The verdict from figures and gates; it is never better than the worst of what it rests on."""
    (trading, trading_light), (learning, learning_light) = _trades(figures), _learned(figures)
    order: list[Light] = ["pass", "caution", "fail", "skipped"]
    lights: list[Light] = [trading_light, learning_light]
    if any(gate.light in ("fail", "skipped") for gate in gates):
        lights.append("caution")
    return Verdict(f"{trading}. {learning}.", sentences(figures, gates), max(lights, key=order.index))
