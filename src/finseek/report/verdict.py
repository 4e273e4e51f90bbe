"""The verdict in plain words: what the figures allow to say, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finseek.report.blocks import Gate, Light
from finseek.report.figures import Estimate, Figures
from finseek.report.numbers import (
    Format,
    finite,
    number2,
    percent,
    plural,
    signed_percent,
    signed_percent2,
    signed_points,
)


@dataclass(frozen=True)
class Verdict:
    """One headline, the sentences that carry it, and its light."""

    headline: str
    sentences: list[str]
    light: Light


def _trades(figures: Figures) -> tuple[str, Light]:
    """What may be said of the trading, first half of the headline."""
    mine, hold = figures.strategy, figures.account("buy_and_hold")
    if mine is None:
        return "No backtest was run", "skipped"
    if finite(mine.get("turnover_annual")) == 0:
        return "Never traded: no answer opened a position", "fail"
    ahead = hold is not None and (mine.get("total_return") or 0.0) > (hold.get("total_return") or 0.0)
    proven = ahead and figures.over_holding.reading == "above zero"
    beats = (
        "Beats buy-and-hold" if proven else "Earned more than buy-and-hold" if ahead else "Does not beat buy-and-hold"
    )
    excess = figures.excess
    if not excess.bounded:
        return f"{beats}; the excess has no interval", "caution"
    if excess.reading == "above zero":
        return f"{beats}; earns more than its exposure explains", "pass" if ahead else "caution"
    if excess.reading == "below zero":
        return f"{beats}; earns less than its exposure explains", "fail"
    return f"{beats}; the excess cannot be told from luck", "caution" if ahead else "fail"


def _learned(figures: Figures) -> tuple[str, Light]:
    """What may be said of the predictions, second half of the headline."""
    if figures.accuracy.value is None:
        return "no predictions were scored", "skipped"
    if not figures.rivals:
        return "no baseline stands beside the predictions", "caution"
    beaten = [baseline for baseline in figures.rivals if baseline.difference.reading == "above zero"]
    if len(beaten) == len(figures.rivals):
        return f"predicts the teacher better than {_all_of(len(beaten))}", "pass"
    if beaten:
        return f"predicts the teacher better than {len(beaten)} of {len(figures.rivals)} baselines", "caution"
    return "predicts the teacher no better than the baselines", "fail"


def _all_of(count: int) -> str:
    return {1: "its one baseline", 2: "both baselines"}.get(count, f"all {count} baselines")


def _range(figures: Figures, estimate: Estimate, shown: Format) -> str:
    return f"{figures.interval} {shown(estimate.low)} to {shown(estimate.high)}, which {_says(estimate)}"


def _says(estimate: Estimate) -> str:
    return {"above zero": "lies above zero", "below zero": "lies below zero"}.get(estimate.reading, estimate.reading)


def sentences(figures: Figures, gates: Sequence[Gate]) -> list[str]:
    """The reasons behind the headline, most important first."""
    told = []
    mine, hold, excess = figures.strategy, figures.account("buy_and_hold"), figures.excess
    if mine is not None:
        beside = f"; buy-and-hold of the same names earned {signed_percent(hold.get('total_return'))}" if hold else ""
        over = figures.over_holding
        paired = f"; a year's difference, paired: {_range(figures, over, signed_percent)}" if over.bounded else ""
        told.append(f"After costs the account earned {signed_percent(mine.get('total_return'))}{beside}{paired}.")
    if excess.value is not None:
        bounds = f" ({_range(figures, excess, signed_percent2)})" if excess.bounded else " (no interval)"
        told.append(
            f"Against the same exposure to the market it earned {signed_percent2(excess.value)} a year{bounds}."
        )
    if figures.smallest_sharpe is not None:
        told.append(
            f"{plural(figures.sessions or 0, 'session')} could only have shown an annual Sharpe above "
            f"{number2(figures.smallest_sharpe)}; this account's is {number2(mine.get('sharpe') if mine else None)}."
        )
    if figures.accuracy.value is not None:
        told.append(
            f"The model gives the teacher's action in {percent(figures.accuracy.value)} of "
            f"{plural(figures.rows or 0, 'test row')}, unscored ones counted as wrong."
        )
    told += [
        f"Against {baseline.name}: {signed_points(baseline.difference.value)} percentage points of accuracy "
        f"({_range(figures, baseline.difference, signed_points)})."
        for baseline in figures.rivals
        if baseline.difference.bounded
    ]
    if figures.trials is not None:
        told.append(
            f"{plural(figures.trials, 'trial')} on this test data so far: the more trials, the more likely that the "
            "best one was luck."
        )
    else:
        told.append("The number of trials on this test data was not recorded, so no figure here is corrected for it.")
    red = [gate.title.lower() for gate in gates if gate.light in ("fail", "skipped")]
    told.append(f"Red gates: {', '.join(red)}." if red else "No gate is red.")
    return told


def give_verdict(figures: Figures, gates: Sequence[Gate]) -> Verdict:
    """The verdict from figures and gates; it is never better than the worst of what it rests on."""
    (trading, trading_light), (learning, learning_light) = _trades(figures), _learned(figures)
    order: list[Light] = ["pass", "caution", "fail", "skipped"]
    lights: list[Light] = [trading_light, learning_light]
    if any(gate.light in ("fail", "skipped") for gate in gates):
        lights.append("caution")
    return Verdict(f"{trading}; {learning}.", sentences(figures, gates), max(lights, key=order.index))
