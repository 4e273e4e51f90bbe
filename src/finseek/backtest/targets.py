"""Signals to target weights: directions, sizing, holding period, rebalancing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finseek.backtest.options import BacktestOptions
from finseek.backtest.positions import directions, given_weights, place, thin_out
from finseek.backtest.signals import SignalGrid
from finseek.backtest.sizing import SIZING, SizingInput
from finseek.backtest.tape import Tape

Floats = NDArray[np.float64]


def target_weights(grid: SignalGrid, tape: Tape, options: BacktestOptions) -> Floats:
    """Target weights (T, N) of a grid of signals; NaN is no order. A signal that gives a weight is not sized."""
    if np.isnan(grid.weight).all():
        target = SIZING[options.sizing_strategy](sizing_input(grid, tape, options))
    else:
        target = given_weights(grid, options)
    return thin_out(place(target, grid, options), tape.dates[:-1], options)


def sizing_input(grid: SignalGrid, tape: Tape, options: BacktestOptions) -> SizingInput:
    """What the sizing strategies may know of a grid of signals and the prices before its decisions."""
    fill_returns = np.full(grid.rank.shape, np.nan)
    fill_returns[1:] = tape.fill[1:-1] / tape.fill[:-2] - 1.0
    return SizingInput(
        direction=np.nan_to_num(directions(grid, options)),
        strong=np.abs(grid.rank) == 2,
        probabilities=grid.probabilities,
        signalled=grid.present,
        listed=tape.tradable[:-1],
        volatility=tape.volatility[1:],
        daily_returns=tape.daily_returns,
        fill_returns=fill_returns,
        options=options,
    )
