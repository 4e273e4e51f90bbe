"""Limits on orders: each takes the orders of a row and returns smaller ones.

Legend: N tickers, B any batch axes; h (B, N) holdings in money before the orders, delta (B, N) the orders, E (B, 1)
equity, target h + delta. ``ordered`` marks the names that have an order; the others keep their shares, and count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.options import BacktestOptions
from finseek.backtest.tape import Tape

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """Where an order stands: row number k, holdings h (B, N), equity E (B, 1), which names are ordered (B, N)."""

    k: int
    h: Floats
    E: Floats
    ordered: Bools


Limit = Callable[[Floats, Row], Floats]


def _fit(target: Floats, kept: Floats, room: Floats, row: Row, among: Bools) -> Floats:
    """Scale the ordered targets ``among`` so that their sum of |target| fits in the room that ``kept`` leaves."""
    wanted = np.where(among, np.abs(target), 0.0).sum(axis=-1, keepdims=True)
    scale = np.clip((room - kept) / np.where(wanted > 0, wanted, 1.0), 0.0, 1.0)
    return np.where(among, target * scale, target)


def max_weight(delta: Floats, row: Row, *, limit: float) -> Floats:
    """|target| ≤ limit · E for every ordered name."""
    bound = limit * np.maximum(row.E, 0.0)
    return np.where(row.ordered, np.clip(row.h + delta, -bound, bound) - row.h, delta)


def max_gross(delta: Floats, row: Row, *, limit: float) -> Floats:
    """Σ|target| ≤ limit · E, by scaling the ordered names."""
    target = row.h + delta
    kept = np.where(row.ordered, 0.0, np.abs(target)).sum(axis=-1, keepdims=True)
    return _fit(target, kept, limit * row.E, row, row.ordered) - row.h


def max_sector(delta: Floats, row: Row, *, limit: float, sectors: list[Bools]) -> Floats:
    """Σ|target| ≤ limit · E within each sector, by scaling the ordered names of the sector."""
    target = row.h + delta
    for members in sectors:
        kept = np.where(members & ~row.ordered, np.abs(target), 0.0).sum(axis=-1, keepdims=True)
        target = _fit(target, kept, limit * row.E, row, row.ordered & members)
    return target - row.h


def max_net(delta: Floats, row: Row, *, limit: float) -> Floats:
    """|Σ target| ≤ limit · E, by scaling the ordered names of the heavier side."""
    target = row.h + delta
    for sign in (1.0, -1.0):
        net = sign * target.sum(axis=-1, keepdims=True)
        side = row.ordered & (sign * target > 0)
        heavy = np.where(side, sign * target, 0.0).sum(axis=-1, keepdims=True)
        excess = np.maximum(net - limit * row.E, 0.0)
        scale = np.clip(1.0 - excess / np.where(heavy > 0, heavy, 1.0), 0.0, 1.0)
        target = np.where(side, target * scale, target)
    return target - row.h


def no_trade_band(delta: Floats, row: Row, *, band: float) -> Floats:
    """No order below band · E that only resizes a position; openings, closings and turns trade."""
    resizes = row.h * (row.h + delta) > 0
    return np.where(resizes & (np.abs(delta) < band * row.E), 0.0, delta)


def max_participation(delta: Floats, row: Row, *, limit: float, tape: Tape) -> Floats:
    """|delta| ≤ limit · mean money volume."""
    bound = np.where(row.ordered, limit * tape.money_volume[row.k], 0.0)
    return np.clip(delta, -bound, bound)


def max_turnover(delta: Floats, row: Row, *, limit: float) -> Floats:
    """Σ|delta| ≤ limit · E, by scaling all orders."""
    traded = np.abs(delta).sum(axis=-1, keepdims=True)
    scale = np.clip(limit * row.E / np.where(traded > 0, traded, 1.0), 0.0, 1.0)
    return delta * scale


def whole_shares(delta: Floats, row: Row, *, tape: Tape) -> Floats:
    """Orders of whole raw shares, rounded towards zero; an order that closes a position may hold a fraction.

    What would leave less than a millionth of a share closes the position: rounding must leave no dust behind.
    """
    price = np.where(np.isnan(tape.raw_fill[row.k]), 1.0, tape.raw_fill[row.k])
    shares = delta / price
    whole = np.trunc(shares + np.sign(shares) * 1e-9) * price
    closes = (row.h + delta == 0.0) | (np.abs(row.h + whole) < 1e-6 * price)
    return np.where((delta != 0.0) & closes, -row.h, whole)


def active_limits(tape: Tape, options: BacktestOptions) -> dict[str, Limit]:
    """The limits that the options ask for, in the order in which they apply."""
    limits = options.limits
    table: dict[str, Limit] = {}
    if limits.max_weight is not None:
        table["max_weight"] = partial(max_weight, limit=limits.max_weight)
    if limits.max_sector is not None:
        sectors = _sector_masks(tape.tickers, limits.sectors)
        table["max_sector"] = partial(max_sector, limit=limits.max_sector, sectors=sectors)
    if limits.max_gross is not None:
        table["max_gross"] = partial(max_gross, limit=limits.max_gross)
    if limits.max_net is not None:
        table["max_net"] = partial(max_net, limit=limits.max_net)
    if options.no_trade_band:
        table["no_trade_band"] = partial(no_trade_band, band=options.no_trade_band)
    if limits.max_participation is not None:
        table["max_participation"] = partial(max_participation, limit=limits.max_participation, tape=tape)
    if limits.max_turnover is not None:
        table["max_turnover"] = partial(max_turnover, limit=limits.max_turnover)
    if not options.fractional:
        table["whole_shares"] = partial(whole_shares, tape=tape)
    return table


def _sector_masks(tickers: tuple[str, ...], sectors: dict[str, str]) -> list[Bools]:
    """Membership of each sector, (N,); a ticker without one is a sector of its own."""
    names = [sectors.get(ticker, f"\0{ticker}") for ticker in tickers]
    return [np.array([name == sector for name in names]) for sector in sorted(set(names))]
