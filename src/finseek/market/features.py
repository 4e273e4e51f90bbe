"""What a snapshot can show of a ticker as of session t: one table of features, each with its formula and its scale.

Legend: S sessions, N tickers, n a window in bars, x_t the value at bar t; o h l c are adjusted prices, r_t = ln(c_t /
c_{t-1}), m_t = raw close x volume (money). A formula gets arrays (S, N) that hold the bars of each ticker one after the
other without holes, and returns (S, N); what it returns before it has seen ``window`` earlier bars is thrown away, so
it need not care. A formula may use rows <= t of the same column for row t, nothing else: columns come in blocks.

Every feature has a *scale*: how its value becomes a number that a constant grid can cut.

- ``normal``: about N(0, 1) after division by the volatility as of t or by a constant; cut at normal quantiles.
- ``unit``: has a known range, mapped to 0..1; cut into equal parts.

A feature of your own takes five lines, named in the config as ``my_module:RANGE5``:

    from finseek.market.features import Bars, Feature
    from finseek.market.rolling import rolling_max, rolling_min
    def _range5(bars: Bars):
        return np.log(rolling_max(bars.high, 5) / rolling_min(bars.low, 5))
    RANGE5 = Feature("range5", "range of 5 sessions", "log", 5, _range5, lambda x, vol: np.log(x / (3 * vol)))
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finseek.core.errors import InputError
from finseek.core.sessions import YEAR
from finseek.market.rolling import rolling_max, rolling_mean, rolling_min, rolling_std, rolling_sum, shifted

Floats = NDArray[np.float64]
VOLATILITY_WINDOW = 20


@dataclass(frozen=True)
class Bars:
    """Bars of each ticker without holes, shape (S, N) each; NaN below the last bar of a column.

    Attributes:
        open: adjusted open.
        high: adjusted high.
        low: adjusted low.
        close: adjusted close.
        money: raw close x volume, in the currency of the price.
        growth: r_t = ln(c_t / c_{t-1}); NaN in row 0.
        volatility: standard deviation (ddof = 1) of the 20 last r, a day's.
    """

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    money: Floats
    growth: Floats
    volatility: Floats


@dataclass(frozen=True)
class Feature:
    """One column of the snapshot.

    Attributes:
        name: short word of [a-z0-9_], as the prompt shows it.
        meaning: for people, one line.
        unit: of the unscaled value.
        window: number of earlier bars without which there is no value.
        formula: bars -> value (S, N), in ``unit``.
        scaling: (value, volatility) -> scaled value: about N(0, 1), or 0..1 where ``scale`` is ``unit``.
        scale: which constant grid cuts the scaled value.
        scaled_by_volatility: whether ``scaling`` reads the volatility (its 20 bars then count into the window).
    """

    name: str
    meaning: str
    unit: str
    window: int
    formula: Callable[[Bars], Floats]
    scaling: Callable[[Floats, Floats], Floats]
    scale: Literal["normal", "unit"] = "normal"
    scaled_by_volatility: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", self.name):
            raise InputError(f"feature name {self.name!r} must be lower-case letters, digits and _ only")

    @property
    def scaled_window(self) -> int:
        """Number of earlier bars without which there is no scaled value."""
        return max(self.window, VOLATILITY_WINDOW) if self.scaled_by_volatility else self.window


def volatility(growth: Floats) -> Floats:
    """Standard deviation (ddof = 1) of the 20 last daily log returns."""
    return rolling_std(growth, VOLATILITY_WINDOW)


EMA_SPAN, EMA_WINDOW = 20, 60
RSI_WINDOW = 14


def _simple_return(bars: Bars, n: int) -> Floats:
    """c_t / c_{t-n} - 1."""
    return bars.close / shifted(bars.close, n) - 1


def _sma_distance(bars: Bars, n: int) -> Floats:
    """c_t / mean(c_{t-n+1} .. c_t) - 1."""
    return bars.close / rolling_mean(bars.close, n) - 1


def _ema(x: Floats) -> Floats:
    """Exponential mean of span 20 over the 60 last bars: weights (1 - 2/21)^k, k = 0..59, normalised to sum 1.

    The usual recursion never forgets the first bar of the file; the cut (0.25 % of its weight) makes the value of a
    session the same whatever history the file holds before it.
    """
    decay = 1 - 2 / (EMA_SPAN + 1)
    return rolling_sum(x, EMA_WINDOW, decay) * ((1 - decay) / (1 - decay**EMA_WINDOW))


def _ema_distance(bars: Bars) -> Floats:
    """c_t / EMA20_t - 1, see ``_ema``."""
    return bars.close / _ema(bars.close) - 1


def _rsi(bars: Bars) -> Floats:
    """Cutler's RSI: 100 x gains / (gains + losses), simple sums over the 14 last changes of the close.

    Wilder's smoothing depends on where the file begins, this does not. 50 where nothing moved.
    """
    change = bars.close - shifted(bars.close, 1)
    gains = rolling_mean(np.maximum(change, 0), RSI_WINDOW)
    losses = rolling_mean(np.maximum(-change, 0), RSI_WINDOW)
    total = gains + losses
    return np.where(total == 0, 50.0, 100 * gains / np.where(total == 0, 1, total))


def _position(x: Floats, low: Floats, high: Floats) -> Floats:
    width = high - low
    return np.where(width > 0, (x - low) / np.where(width > 0, width, 1), np.nan)


def _year_position(bars: Bars) -> Floats:
    """(c_t - L) / (H - L), H and L the extremes of the adjusted closes of the 252 last bars."""
    return _position(bars.close, rolling_min(bars.close, YEAR), rolling_max(bars.close, YEAR))


def _by_volatility(factor: float) -> Callable[[Floats, Floats], Floats]:
    """ln(1 + x) / (volatility x factor), factor being the standard deviation of x when r is white noise of size 1."""
    return lambda x, vol: np.log1p(x) / (vol * factor)


def _sma_factor(n: int) -> float:
    """Standard deviation of c_t - SMA_n for a random walk: sqrt(sum_{j<n} (j/n)^2)."""
    return sqrt((n - 1) * (2 * n - 1) / (6 * n))


def _ema_factor() -> float:
    """The same for the exponential mean: sqrt(sum_{k>=1} q^2k)."""
    decay = (1 - 2 / (EMA_SPAN + 1)) ** 2
    return sqrt(decay / (1 - decay))


def _return_feature(n: int) -> Feature:
    formula = partial(_simple_return, n=n)
    return Feature(f"ret{n}", f"return over {n} sessions", "fraction", n, formula, _by_volatility(sqrt(n)))


def _sma_feature(n: int) -> Feature:
    meaning = f"close against its mean of {n} sessions"
    formula = partial(_sma_distance, n=n)
    return Feature(f"sma{n}", meaning, "fraction", n - 1, formula, _by_volatility(_sma_factor(n)))


def _as_is(x: Floats, vol: Floats) -> Floats:
    return x


_TABLE = (
    *(_return_feature(n) for n in (1, 2, 3, 5, 10, 20, 60)),
    Feature("day", "close / open - 1", "fraction", 0, lambda b: b.close / b.open - 1, _by_volatility(0.9)),
    Feature(
        "gap",
        "open / previous close - 1",
        "fraction",
        1,
        lambda b: b.open / shifted(b.close, 1) - 1,
        _by_volatility(0.5),
    ),
    Feature(
        "range",
        "ln(high / low) of the day",
        "log",
        0,
        lambda b: np.log(b.high / b.low),
        lambda x, vol: np.log(x / (1.2 * vol)) / 0.45,
    ),
    Feature(
        "pos",
        "close within the day's range, 0 low to 1 high",
        "0..1",
        0,
        lambda b: _position(b.close, b.low, b.high),
        _as_is,
        "unit",
        False,
    ),
    *(_sma_feature(n) for n in (5, 20, 50)),
    Feature(
        "ema20",
        "close against its exponential mean of span 20",
        "fraction",
        EMA_WINDOW - 1,
        _ema_distance,
        _by_volatility(_ema_factor()),
    ),
    Feature(
        "rsi14",
        "Cutler's RSI of 14 sessions",
        "0..100",
        RSI_WINDOW,
        _rsi,
        lambda x, vol: (x - 50) / 17,
        "normal",
        False,
    ),
    Feature(
        "vol20",
        "standard deviation of 20 daily log returns",
        "a day",
        VOLATILITY_WINDOW,
        lambda b: b.volatility,
        lambda x, vol: np.log(x * sqrt(YEAR) / 0.25) / 0.4,
        "normal",
        False,
    ),
    Feature(
        "money20",
        "money volume over its mean of 20 sessions",
        "ratio",
        19,
        lambda b: b.money / rolling_mean(b.money, 20),
        lambda x, vol: np.log(x) / 0.35,
        "normal",
        False,
    ),
    Feature(
        "pos252",
        "close within its range of 252 sessions (52 weeks)",
        "0..1",
        YEAR - 1,
        _year_position,
        _as_is,
        "unit",
        False,
    ),
)
FEATURES: dict[str, Feature] = {feature.name: feature for feature in _TABLE}


def find_feature(name: str) -> Feature:
    """A feature of the table by its name, or one of the user's by ``module:attribute``.

    Raises:
        InputError: there is none of that name.
    """
    if name in FEATURES:
        return FEATURES[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, FEATURES, n=1, cutoff=0.3)
        raise InputError(f"feature {name!r} is unknown; the nearest is {(near or [', '.join(FEATURES)])[0]}")
    try:
        feature = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"feature {name!r} cannot be loaded ({error}): give importable_module:name") from None
    if not isinstance(feature, Feature):
        raise InputError(f"feature {name!r} is a {type(feature).__name__}, not a finseek.market.features.Feature")
    return feature
