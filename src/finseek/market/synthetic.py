"""A market from a seed, with a signal planted in it whose strength is known.

Legend: S sessions, N tickers, s_t the planted signal (S, N), sigma the daily volatility of a ticker.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from finseek.core.options import Options
from finseek.core.sessions import Sessions
from finseek.market.features import Bars, Feature, Floats, find_feature, volatility
from finseek.market.prices import Prices

CLIP = 2.5


class SyntheticMarketOptions(Options):
    """The market that ``generate_prices`` draws."""

    n_tickers: int = Field(default=20, ge=1, le=5000, description="tickers")
    n_sessions: int = Field(default=500, ge=2, description="sessions, Mondays to Fridays")
    alpha: float = Field(
        default=0.15,
        ge=-1,
        le=1,
        description="expected open-to-open return in daily volatilities per unit of signal; 0: none",
    )
    feature: str = Field(default="ret5", description="feature of the snapshot that the signal is read from")
    reverting: bool = Field(
        default=True, description="the signal is minus the feature (reversal), else plus (momentum)"
    )
    market_share: float = Field(
        default=0.25, ge=0, le=1, description="share of variance that all tickers have in common"
    )
    volatility: float = Field(default=0.018, gt=0, lt=0.2, description="median daily volatility")
    overnight_share: float = Field(default=0.25, ge=0, le=1, description="share of variance between close and open")
    start: str = Field(default="2022-01-03", description="first session, ISO date")


@dataclass(frozen=True)
class Planted:
    """What is known about a synthetic market.

    Attributes:
        feature: name of the snapshot's feature.
        alpha: expected log return from the open of t+1 to the open of t+2, in volatilities per unit of signal.
        signal: s_t = -+ scaled feature as of t, clipped to +-2.5; shape (S, N), NaN before its window.
        sigma: daily volatility of each ticker, shape (N,).
        expected: E[ln open(t+2)/open(t+1) | t] = alpha * sigma * s_t, shape (S, N).
    """

    feature: str
    alpha: float
    signal: Floats
    sigma: Floats

    @property
    def expected(self) -> Floats:
        """Expected log return from the open of t+1 to the open of t+2, shape (S, N)."""
        return self.alpha * self.sigma * self.signal

    def direction_accuracy(self) -> float:
        """Share of next open-to-open returns whose sign the best predictor gets right: mean of Phi(|alpha s|)."""
        from statistics import NormalDist

        strength = np.abs(self.alpha * self.signal[np.isfinite(self.signal)])
        return float(np.mean([NormalDist().cdf(x) for x in strength]))


def generate_prices(
    seed: int,
    n_tickers: int | None = None,
    n_sessions: int | None = None,
    alpha: float | None = None,
    options: SyntheticMarketOptions | None = None,
) -> tuple[Prices, Planted]:
    """Draw a market of correlated geometric random walks whose next return leans on a feature of the snapshot.

    Given everything known at the close of t, the log return from the open of t+1 to the open of t+2 is normal with
    mean alpha * sigma * s_t and standard deviation sigma. With alpha = 0 nothing predicts anything. The same seed draws
    the same noise for every alpha. Prices are rounded to cents; there are no splits and no dividends. The benchmark
    ``MKT`` is the common factor alone.

    Args:
        seed: of all draws.
        n_tickers: N, overrides the options.
        n_sessions: S, overrides the options.
        alpha: overrides the options.
        options: the rest.
    """
    options = options or SyntheticMarketOptions()
    given = {"n_tickers": n_tickers, "n_sessions": n_sessions, "alpha": alpha}
    options = SyntheticMarketOptions.model_validate(
        {**options.model_dump(), **{name: value for name, value in given.items() if value is not None}}
    )
    rng = np.random.default_rng(seed)
    S, N = options.n_sessions, options.n_tickers
    feature = find_feature(options.feature)
    sigma = options.volatility * np.exp(rng.normal(0, 0.3, N))
    common = rng.standard_normal((S, 2, 1))
    own = rng.standard_normal((S, 2, N))
    part = np.sqrt([options.overnight_share, 1 - options.overnight_share])[:, None]
    share = sqrt(options.market_share)
    noise = sigma * part * (share * common + sqrt(1 - options.market_share) * own)
    width = np.abs(rng.standard_normal((2, S, N))) * sigma * 0.35
    first = np.exp(rng.uniform(np.log(40), np.log(400), N))
    shares = np.exp(rng.normal(15, 1, N) + rng.normal(0, 0.3, (S, N)) + 0.25 * np.abs(noise.sum(axis=1)) / sigma)

    open_, high, low, close = (np.empty((S, N)) for _ in range(4))
    volume = np.round(shares)
    signal = np.full((S, N), np.nan)
    lean = np.zeros((S + 1, N))  # alpha * sigma * s_t, 0 while the signal is unknown
    sign = -1.0 if options.reverting else 1.0
    for t in range(S):
        before = close[t - 1] if t else first
        # open(t+1) -> open(t+2) is the day of t+1 and the night after it: each carries its share of the lean on s_t.
        night = noise[t, 0] + options.overnight_share * lean[t - 1]
        day = noise[t, 1] + (1 - options.overnight_share) * lean[t]
        open_[t] = np.maximum(np.round(before * np.exp(night), 2), 0.01)
        close[t] = np.maximum(np.round(open_[t] * np.exp(day), 2), 0.01)
        high[t] = np.round(np.maximum(open_[t], close[t]) * np.exp(width[0, t]), 2)
        low[t] = np.maximum(np.round(np.minimum(open_[t], close[t]) * np.exp(-width[1, t]), 2), 0.01)
        signal[t] = sign * _latest(feature, t, open_, high, low, close, volume)
        lean[t + 1] = options.alpha * sigma * np.nan_to_num(signal[t])
    sessions = Sessions(np.busday_offset(np.datetime64(options.start, "D"), np.arange(S), roll="forward"))
    digits = len(str(N - 1))
    tickers = tuple(f"S{n:0{digits}d}" for n in range(N))
    index = _index(noise_of=common, sigma=options.volatility * share, part=part, sessions=sessions)
    prices = Prices(sessions, tickers, open_, high, low, close, volume, close.copy(), index)
    return prices, Planted(feature.name, options.alpha, signal, sigma)


def _latest(feature: Feature, t: int, *columns: NDArray[np.float64]) -> Floats:
    """Scaled feature as of row t, clipped; NaN before its window. Shape (N,)."""
    if t < feature.scaled_window:
        return np.full(columns[0].shape[1], np.nan)
    rows = slice(t - feature.scaled_window, t + 1)
    open_, high, low, close, volume = (column[rows] for column in columns)
    growth = np.diff(np.log(close), axis=0, prepend=np.nan)
    bars = Bars(open_, high, low, close, close * volume, growth, volatility(growth))
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = feature.scaling(feature.formula(bars), bars.volatility)[-1]
    centred = (scaled - 0.5) * sqrt(12) if feature.scale == "unit" else scaled
    clipped: Floats = np.clip(centred, -CLIP, CLIP)
    return clipped


def _index(noise_of: Floats, sigma: float, part: Floats, sessions: Sessions) -> Prices:
    """The common factor as a ticker of its own."""
    steps = sigma * part[None] * noise_of
    path = 400 * np.exp(np.cumsum(steps.reshape(-1))).reshape(-1, 2)
    open_, close = np.round(path[:, :1], 2), np.round(path[:, 1:], 2)
    volume = np.full(close.shape, 5e7)
    return Prices(
        sessions, ("MKT",), open_, np.maximum(open_, close), np.minimum(open_, close), close, volume, close.copy()
    )
