"""An account that trades dated signals at the next open, and what it earned after costs."""

from finseek.backtest.options import BacktestOptions
from finseek.backtest.run import BacktestResult, exposure_matched_excess, run_backtest, write_result
from finseek.backtest.signals import Signal, read_signals, signal_tickers
from finseek.backtest.sweep import SweepResult, sweep, write_sweep

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
