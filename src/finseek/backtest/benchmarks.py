"""What a result is compared with, at the level of weights: same window, same costs, same account."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.simulate import Account
from finseek.backtest.tape import Tape

Floats = NDArray[np.float64]


def buy_and_hold(steps: int, names: int) -> Floats:
    """1/N of every name at the first fill, then no order. Shape (T, N)."""
    weights = np.full((steps, names), np.nan)
    weights[0] = 1.0 / names
    return weights


def all_buy(steps: int, names: int) -> Floats:
    """1/N of every name, rebalanced at every session. Shape (T, N)."""
    return np.full((steps, names), 1.0 / names)


def exposure_matched_excess(account: Account, tape: Tape) -> Floats:
    """Return of each session beyond what its net exposure earned in the equal-weight universe. Shape (T,).

    excess(k) = r(k) - [net(k-1 at the close) · u_overnight(k) + net(k after its fills) · u_intraday(k)] / equity(k-1)

    with net the sum of the holdings in money and u the return of the universe, 1/N a name at each fill, up to and
    from the fill of row k. An equal-weight account without costs has an excess of zero, whatever its exposure.
    """
    carried = tape.after[:-1]
    up_to = (carried * tape.before[1:]).mean(axis=1) / carried.mean(axis=1) - 1.0
    since = tape.after[1:].mean(axis=1) - 1.0
    net_close = account.held.sum(axis=-1)[:-1]
    net_filled = (account.before + account.traded).sum(axis=-1)[1:]
    matched = (net_close * up_to + net_filled * since) / account.equity[:-1]
    excess: Floats = np.diff(account.equity) / account.equity[:-1] - matched
    return excess
