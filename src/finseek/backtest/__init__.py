"""An account that trades dated signals at the next open, and what it earned after costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finseek.backtest.options import BacktestOptions
    from finseek.backtest.run import BacktestResult, exposure_matched_excess, run_backtest, write_result
    from finseek.backtest.signals import Signal, read_signals, signal_tickers
    from finseek.backtest.sweeps import SweepResult, sweep, write_sweep

# Imported when asked for: the config of a run needs the options alone.
_HOME = {
    "BacktestOptions": "options",
    "BacktestResult": "run",
    "Signal": "signals",
    "SweepResult": "sweeps",
    "exposure_matched_excess": "run",
    "read_signals": "signals",
    "run_backtest": "run",
    "signal_tickers": "signals",
    "sweep": "sweeps",
    "write_result": "run",
    "write_sweep": "sweeps",
}
__all__ = [
    "BacktestOptions",
    "BacktestResult",
    "Signal",
    "SweepResult",
    "exposure_matched_excess",
    "read_signals",
    "run_backtest",
    "signal_tickers",
    "sweep",
    "write_result",
    "write_sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
