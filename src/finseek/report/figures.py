"""The figures that verdict, gates, sections and comparison share, read once from the artifacts' JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finseek.report.inputs import Json, ReportInputs
from finseek.report.numbers import GLUE, finite


@dataclass(frozen=True)
class Estimate:
    """A value with the bounds of its interval; None where absent."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def read(cls, found: Any) -> Estimate:
        """From ``{estimate, low, high}``; a bare number has no bounds."""
        if not isinstance(found, Mapping):
            return cls(finite(found))
        value = found.get("estimate", found.get("value"))
        return cls(finite(value), finite(found.get("low")), finite(found.get("high")))

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return self.low is not None and self.high is not None

    @property
    def reading(self) -> str:
        """What the interval says, in words."""
        if self.low is None or self.high is None:
            return "no interval"
        return "above zero" if self.low > 0 else "below zero" if self.high < 0 else "includes zero"


@dataclass(frozen=True)
class Baseline:
    """A rule that the model should beat, on the same rows."""

    name: str
    accuracy: float | None
    macro_f1: float | None
    difference: Estimate


@dataclass(frozen=True)
class Account:
    """One simulated account and its performance."""

    name: str
    metrics: Json


@dataclass(frozen=True)
class Figures:
    """Headline figures of a run; None or empty where the run lacks them."""

    rows: int | None
    scored: int | None
    unscored: Mapping[str, int]
    accuracy: Estimate
    macro_f1: float | None
    bayes_accuracy: float | None
    baselines: tuple[Baseline, ...]
    accounts: tuple[Account, ...]
    excess: Estimate
    sharpe: Estimate
    sessions: int | None
    smallest_sharpe: float | None
    trials: int | None
    deflated: float | None
    level: float

    @property
    def strategy(self) -> Json | None:
        """Metrics of the run's own account."""
        return self.accounts[0].metrics if self.accounts else None

    @property
    def rivals(self) -> tuple[Baseline, ...]:
        """The baselines that a model can beat: not the teacher, whose actions are the truth."""
        return tuple(baseline for baseline in self.baselines if baseline.name != "teacher")

    @property
    def over_holding(self) -> Estimate:
        """Return a year of the account less that of the universe bought and held, paired by session."""
        return Estimate.read((self.account("buy_and_hold") or {}).get("return_difference_annual"))

    @property
    def interval(self) -> str:
        """What an interval is called: its nominal coverage and the word."""
        return f"{100 * self.level:g}{GLUE}% interval"

    def account(self, name: str) -> Json | None:
        """Metrics of an account by name."""
        return next((account.metrics for account in self.accounts if account.name == name), None)


def read_figures(inputs: ReportInputs) -> Figures:
    """Collect the headline figures from the artifacts."""
    evaluation, backtest = inputs.evaluation or {}, inputs.backtest or {}
    rows, scores = evaluation.get("rows") or {}, (evaluation.get("classification") or {}).get("all") or {}
    window = backtest.get("window") or {}
    return Figures(
        rows=rows.get("total"),
        scored=rows.get("scored"),
        unscored=rows.get("unscored") or {},
        accuracy=Estimate.read(scores.get("accuracy")),
        macro_f1=Estimate.read(scores.get("macro_f1")).value,
        bayes_accuracy=finite((inputs.planted or {}).get("bayes_accuracy")),
        baselines=tuple(_baseline(name, found) for name, found in (evaluation.get("baselines") or {}).items()),
        accounts=_accounts(backtest),
        excess=Estimate.read((backtest.get("excess") or {}).get("annual")),
        sharpe=Estimate.read((backtest.get("intervals") or {}).get("sharpe")),
        sessions=window.get("sessions"),
        smallest_sharpe=finite(window.get("smallest_detectable_sharpe")),
        trials=inputs.trials,
        deflated=finite((inputs.deflation or {}).get("deflated_sharpe_ratio")),
        level=finite((evaluation.get("bootstrap") or {}).get("level")) or 0.95,
    )


def _baseline(name: str, found: Json) -> Baseline:
    return Baseline(
        name.replace("_", " "),
        Estimate.read(found.get("accuracy")).value,
        Estimate.read(found.get("macro_f1")).value,
        Estimate.read((found.get("difference") or {}).get("accuracy")),
    )


def _accounts(backtest: Json) -> tuple[Account, ...]:
    """The run's own account first, then the other reading of HOLD, then the benchmarks."""
    mine = backtest.get("performance")
    if not mine:
        return ()
    own_hold = (backtest.get("options") or {}).get("hold")
    others = [
        Account(f"hold_{hold}", found) for hold, found in (backtest.get("hold") or {}).items() if hold != own_hold
    ]
    beside = [Account(name, found) for name, found in (backtest.get("benchmarks") or {}).items()]
    return (Account("strategy", mine), *others, *beside)
