"""Sizing strategies: from the direction of each name to its target weight.

Legend: T decision sessions, N tickers; direction d in {-1, 0, 1}, 0 too where there is no signal; weight w, a fraction
of equity; sigma the daily volatility known at the decision. Everything ends at the decision session. A name whose
volatility is not known yet gets weight 0 from the strategies that need it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.options import BacktestOptions
from finseek.core.actions import ACTIONS
from finseek.core.errors import InputError
from finseek.core.sessions import YEAR

Floats = NDArray[np.float64]
_RANKS = np.array([action.rank for action in ACTIONS]) / 2.0


@dataclass(frozen=True)
class SizingInput:
    """What a sizing strategy may know.

    Attributes:
        direction: (T, N).
        strong: bool (T, N), where the action is STRONG_BUY or STRONG_SELL.
        probabilities: (T, N, 5) of the actions, or None.
        signalled: bool (T, N), where there is a signal.
        listed: bool (T, N), where the name has a bar at the decision session.
        volatility: (T, N) standard deviation of the daily returns of the last ``volatility_window`` sessions.
        daily_returns: (W + T - 1, N) close-to-close returns; row t + W - 1 is that of decision session t.
        fill_returns: (T, N) return from the fill price of t-1 to that of t, known at the decision; NaN where unknown.
        options: the options.
    """

    direction: Floats
    strong: NDArray[np.bool_]
    probabilities: Floats | None
    signalled: NDArray[np.bool_]
    listed: NDArray[np.bool_]
    volatility: Floats
    daily_returns: Floats
    fill_returns: Floats
    options: BacktestOptions


def _share(known: SizingInput) -> Floats:
    """1 over the number of names that share the equity: (1, 1) or (T, 1)."""
    over = known.options.equal_weight_over
    if over == "universe":
        return np.full((1, 1), 1.0 / known.direction.shape[1])
    members = known.listed if over == "listed" else known.direction != 0
    share: Floats = 1.0 / np.maximum(members.sum(axis=1, keepdims=True), 1)
    return share


def equal_weight(known: SizingInput) -> Floats:
    """Weight d / N, N the names of the universe, of those with a bar, or of those with a direction."""
    return known.direction * _share(known)


def fixed_pct(known: SizingInput) -> Floats:
    """Weight d · fixed_pct."""
    return known.direction * known.options.fixed_pct


def conviction(known: SizingInput) -> Floats:
    """Weight d / N, times ``strong_conviction`` for STRONG_BUY and STRONG_SELL."""
    return equal_weight(known) * np.where(known.strong, known.options.strong_conviction, 1.0)


def inverse_volatility(known: SizingInput) -> Floats:
    """Weight d_i · (1 / sigma_i) / sum over the universe of 1 / sigma_j."""
    usable = known.volatility > 0
    inverse = np.where(usable, 1.0 / np.where(usable, known.volatility, 1.0), 0.0)
    total = inverse.sum(axis=1, keepdims=True)
    return known.direction * inverse / np.where(total > 0, total, 1.0)


def volatility_target(known: SizingInput) -> Floats:
    """Equal weights scaled so that the book's volatility was ``target_volatility``.

    The scale is target / (√252 · std of the returns that these weights had over the last ``volatility_window``
    sessions), which is √(w' C w) with the sample covariance C. A window with an unknown return gives weight 0.
    """
    base, window = equal_weight(known), known.options.volatility_window
    sized = np.zeros(base.shape)
    for t, w in enumerate(base):
        active = w != 0
        past = known.daily_returns[t : t + window, active] @ w[active]
        deviation = float(past.std(ddof=1))
        if deviation > 0:
            sized[t] = w * known.options.target_volatility / (np.sqrt(YEAR) * deviation)
    return sized


def probability_weighted(known: SizingInput) -> Floats:
    """Weight m / N with m = sum over actions of p · rank / 2, in [-1, 1]; without shorts at least 0.

    Raises:
        InputError: a signal without probabilities.
    """
    if known.probabilities is None or np.isnan(known.probabilities[known.signalled]).any():
        raise InputError(
            "backtest.sizing_strategy probability_weighted needs the five probabilities of every signal (p_strong_sell "
            "to p_strong_buy of eval_results.csv): score with probabilities, or choose another strategy"
        )
    mean = np.where(known.signalled, np.nan_to_num(known.probabilities) @ _RANKS, 0.0)
    return (mean if known.options.shorts else np.maximum(mean, 0.0)) * _share(known)


def kelly(known: SizingInput) -> Floats:
    """Weight d · min(cap, fraction · max(m, 0) / sigma²): the capped fraction of Kelly's mean over variance.

    m is what following the signals has earned a day until now: the mean of d(s) · [fill(s+1) → fill(s+2)] over the
    universe and the sessions s of the backtest whose s+2 is not after the decision; before ``kelly_history`` such
    returns are known, weight 0. The settlement of a delisted name counts as a fill.
    """
    outcome = np.zeros(known.direction.shape)
    outcome[2:] = known.direction[:-2] * known.fill_returns[2:]
    counted = np.zeros(outcome.shape, dtype=bool)
    counted[2:] = (known.direction[:-2] != 0) & ~np.isnan(known.fill_returns[2:])
    count = np.cumsum(counted.sum(axis=1))
    mean = np.cumsum(np.where(counted, outcome, 0.0).sum(axis=1)) / np.maximum(count, 1)
    edge = np.where(count >= known.options.kelly_history, np.maximum(mean, 0.0), 0.0)[:, None]
    usable = known.volatility > 0
    full = np.where(usable, edge / np.where(usable, known.volatility, 1.0) ** 2, 0.0)
    return known.direction * np.minimum(known.options.kelly_fraction * full, known.options.kelly_cap)


SIZING: dict[str, Callable[[SizingInput], Floats]] = {
    "equal_weight": equal_weight,
    "fixed_pct": fixed_pct,
    "inverse_volatility": inverse_volatility,
    "volatility_target": volatility_target,
    "conviction": conviction,
    "probability_weighted": probability_weighted,
    "kelly": kelly,
}
