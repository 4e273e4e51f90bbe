"""Theses of a planted market: what a teacher who sees a known signal, and errs at a known rate, would write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import erf, sqrt
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from finseek.core.actions import ACTIONS
from finseek.core.artifacts import atomic_folder
from finseek.core.errors import InputError
from finseek.core.options import Options
from finseek.core.sessions import Sessions
from finseek.theses.records import Thesis, thesis_uid

Array = NDArray[np.float64]


class SyntheticThesesOptions(Options):
    """How the teacher reads the signal."""

    shares: tuple[float, float, float, float, float] = Field(
        default=(0.1, 0.25, 0.3, 0.25, 0.1), description="share of each action, from STRONG_SELL to STRONG_BUY"
    )
    teacher_noise: float = Field(
        default=0.25, ge=0, description="standard deviation of the teacher's error, in units of the signal's own"
    )
    agreement: float = Field(default=1.0, ge=0, le=1, description="share of theses that follow the signal at all")


@dataclass(frozen=True)
class SyntheticTheses:
    """Theses and what the best possible predictor of their action could reach.

    Attributes:
        theses: sorted by ticker and session.
        probabilities: P(action | signal), shape (R, 5), rows as ``theses``, columns as ``ACTIONS``.
        bayes_accuracy: mean over the theses of the largest of the five.
    """

    theses: list[Thesis]
    probabilities: Array
    bayes_accuracy: float


def generate_theses(
    signal: ArrayLike,
    sessions: Sessions,
    tickers: Sequence[str],
    options: SyntheticThesesOptions | None = None,
    *,
    seed: int,
    numbers: Mapping[str, ArrayLike] | None = None,
) -> SyntheticTheses:
    """Write one thesis for each ticker and session with a finite signal.

    The teacher sees z = signal / its standard deviation, adds Gaussian noise of ``teacher_noise`` and acts by the
    quantiles of the sum that give each action its share; with probability 1 − ``agreement`` she draws an action by
    the shares alone.

    Args:
        signal: shape (S, N), a function of what the prompt shows as of each session; NaN where there is none.
        sessions: S of them.
        tickers: N of them.
        options: how she reads it.
        seed: of all draws.
        numbers: further arrays (S, N) that the reasoning quotes, by name.

    Raises:
        InputError: shapes differ, or nothing is finite.
    """
    options = options or SyntheticThesesOptions()
    observed = np.asarray(signal, dtype=np.float64)
    if observed.shape != (len(sessions), len(tickers)):
        raise InputError(f"signal has shape {observed.shape}, not (sessions, tickers) {(len(sessions), len(tickers))}")
    finite = np.isfinite(observed)
    if not finite.any():
        raise InputError("the signal is nowhere finite: there is nothing to write theses about")
    rng = np.random.default_rng(seed)
    z = (observed - observed[finite].mean()) / (observed[finite].std() or 1.0)
    shares = np.array(options.shares) / sum(options.shares)
    seen = z + options.teacher_noise * rng.standard_normal(z.shape)
    cuts = np.quantile(seen[finite], np.cumsum(shares)[:-1])
    rank = np.searchsorted(cuts, seen)
    guess = rng.choice(len(ACTIONS), size=z.shape, p=shares)
    rank = np.where(rng.random(z.shape) < options.agreement, rank, guess)
    words = rng.integers(0, 1 << 30, size=(*z.shape, 4))
    quoted = {name: np.asarray(array, dtype=np.float64) for name, array in (numbers or {}).items()}
    days: list[date] = sessions.dates.tolist()
    theses, places = [], []
    for n in np.argsort(np.array(tickers)):
        for index, s in enumerate(np.flatnonzero(finite[:, n])):
            facts = {name: float(array[s, n]) for name, array in quoted.items() if np.isfinite(array[s, n])}
            theses.append(_thesis(tickers[n], days[s], int(rank[s, n]), float(z[s, n]), facts, words[s, n], index))
            places.append((s, n))
    rows = np.array(places)
    probabilities = action_probabilities(z[rows[:, 0], rows[:, 1]], cuts, shares, options)
    return SyntheticTheses(theses, probabilities, float(probabilities.max(axis=1).mean()))


def action_probabilities(z: Array, cuts: Array, shares: Array, options: SyntheticThesesOptions) -> Array:
    """P(action | z), shape (R, 5): Φ((cut_a − z)/σ) − Φ((cut_{a−1} − z)/σ), mixed with the blind draws."""
    edges = np.concatenate([[-np.inf], cuts, [np.inf]])
    if options.teacher_noise:
        below = _normal_cdf((edges[None, :] - z[:, None]) / options.teacher_noise)
    else:
        below = (edges[None, :] >= z[:, None]).astype(np.float64)
    followed = np.diff(below, axis=1)
    return options.agreement * followed + (1 - options.agreement) * shares[None, :]


def bayes_accuracy(probabilities: Array, groups: ArrayLike | None = None) -> float:
    """Accuracy of the best predictor that sees the signal, or only the group (say, the bin) that a row is in.

    Args:
        probabilities: P(action | signal), shape (R, 5).
        groups: shape (R,), what the predictor sees instead of the signal.
    """
    if groups is None:
        return float(probabilities.max(axis=1).mean())
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    total = np.zeros((member.max() + 1, probabilities.shape[1]))
    np.add.at(total, member.ravel(), probabilities)
    return float(total.max(axis=1).sum() / len(probabilities))


def write_theses_xml(theses: Sequence[Thesis], folder: Path) -> None:
    """Write theses as XML, one file a ticker, as a teacher would have handed them in."""
    from lxml import etree

    with atomic_folder(folder) as partial:
        for ticker in sorted({thesis.ticker for thesis in theses}):
            root = etree.Element("stock-theses", {"ticker": ticker, "generated-by": "finseek", "version": "1.0"})
            for thesis in theses:
                if thesis.ticker == ticker:
                    element = etree.SubElement(root, "thesis")
                    etree.SubElement(element, "as-of-date").text = thesis.as_of_date.isoformat()
                    etree.SubElement(element, "reasoning").text = thesis.reasoning
                    etree.SubElement(element, "action").text = thesis.action.value.lower()
                    etree.SubElement(element, "support").text = thesis.support
            tree = etree.ElementTree(root)
            tree.write(str(partial / f"{ticker}_theses.xml"), encoding="UTF-8", xml_declaration=True, pretty_print=True)


_TONE = (
    ("The pressure on {t} is severe", "{t} breaks down", "Sellers own {t}"),
    ("{t} leans down", "Momentum of {t} fades", "The tape of {t} is soft"),
    ("{t} shows no edge", "The picture of {t} is balanced", "Neither side leads in {t}"),
    ("{t} leans up", "Buyers return to {t}", "The tape of {t} is firm"),
    ("{t} surges", "Demand for {t} is strong", "Buyers own {t}"),
)
_LINK = ("as of", "after the close of", "by the end of", "on the evidence of")
_VIEW = (
    "the composite reading stands at {z:+.2f} standard deviations",
    "our signal reads {z:+.2f} sigma against its own history",
    "the trend score comes to {z:+.2f}",
    "the blend of momentum and position gives {z:+.2f}",
)
_CLOSE = (
    "Costs and noise argue against more than this.",
    "A change of sign would change the view.",
    "The reading decays within days, so size follows it.",
    "Nothing here looks beyond the next sessions.",
)


def _thesis(
    ticker: str, day: date, rank: int, z: float, facts: dict[str, float], words: NDArray[np.int64], index: int
) -> Thesis:
    tone, link, view, close = (
        choices[int(word) % len(choices)]
        for choices, word in zip((_TONE[rank], _LINK, _VIEW, _CLOSE), words, strict=True)
    )
    figures = ", ".join(f"{name} {value:.4g}" for name, value in facts.items())
    reasoning = f"{tone.format(t=ticker)} {link} {day.isoformat()}: {view.format(z=z)}."
    if figures:
        reasoning += f" We note {figures}."
    support = f"1. Signal {z:+.2f}" + "".join(f"\n{i}. {name} {v:.4g}" for i, (name, v) in enumerate(facts.items(), 2))
    return Thesis(
        thesis_uid(ticker, day),
        ticker,
        day,
        f"{reasoning} {close}",
        support,
        ACTIONS[rank],
        {},
        None,
        None,
        None,
        f"{ticker}_theses.xml",
        index,
    )


def _normal_cdf(x: Array) -> Array:
    cdf: Array = np.vectorize(lambda value: 0.5 * (1 + erf(value / sqrt(2))))(x)
    return cdf
