"""Write backtest_oracles.json: run by hand in an environment with vectorbt 1.2.0, empyrical-reloaded and quantstats.

With ``--real PRICES.parquet`` it compares instead, on the real prices and on 500 x 2,520 synthetic ones, and prints
the largest differences; finseek must be importable then.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import empyrical
import numpy as np
import pandas as pd
import quantstats.stats as quantstats
import vectorbt as vbt

FEE, SLIP, CAPITAL = 0.0005, 0.001, 100_000.0


def vectorbt_equity(open_, close, weights):
    """Equity at the closes (T+1,) of weights (T, N) decided the row before; NaN weights place no order."""
    size = np.vstack([np.full((1, close.shape[1]), np.nan), weights])
    portfolio = vbt.Portfolio.from_orders(
        pd.DataFrame(close),
        size=pd.DataFrame(size),
        size_type="targetpercent",
        price=pd.DataFrame(open_),
        val_price=pd.DataFrame(open_),
        fees=FEE,
        slippage=SLIP,
        init_cash=CAPITAL,
        cash_sharing=True,
        group_by=True,
        call_seq="auto",
        freq="D",
    )
    return portfolio.value().to_numpy()


def walk(rng, rows, names):
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, (rows, names)), axis=0))
    return np.vstack([close[:1], close[:-1]]) * np.exp(rng.normal(0, 0.01, (rows, names))), close


def books(rng, rows, names):
    """Random weights that never need more than the cash: long or flat, long or short, some without an order."""
    long_flat = rng.integers(0, 2, (rows, names)) * 0.9 / names
    long_short = rng.uniform(-1, 1, (rows, names)) * 0.5 / names
    kept = np.where(rng.random((rows, names)) < 0.3, np.nan, long_flat)
    return {"long or flat": long_flat, "long or short": long_short, "with names left alone": kept}


def measures(returns):
    """What the two libraries say of a series of daily returns; a key ends in the name of the library."""
    series = pd.Series(returns, index=pd.date_range("2024-01-01", periods=len(returns), freq="B"))
    other = pd.Series(np.round(np.roll(returns, 3) * 0.7 + 0.0002, 7), index=series.index)
    alpha, beta = empyrical.alpha_beta(series, other)
    return {
        "benchmark": other.tolist(),
        "empyrical": {
            "total_return": empyrical.cum_returns_final(series),
            "annual_return": empyrical.annual_return(series),
            "volatility": empyrical.annual_volatility(series),
            "sharpe": empyrical.sharpe_ratio(series),
            "sharpe at 4 %": empyrical.sharpe_ratio(series, risk_free=0.04 / 252),
            "sortino": empyrical.sortino_ratio(series),
            "max_drawdown": empyrical.max_drawdown(series),
            "calmar": empyrical.calmar_ratio(series),
            "omega": empyrical.omega_ratio(series),
            "var_95": empyrical.value_at_risk(series),
            "cvar_95": empyrical.conditional_value_at_risk(series),
            "beta": beta,
            "alpha_compounded": alpha,
            "information_ratio": empyrical.excess_sharpe(series, other) * np.sqrt(252),
        },
        "quantstats": {
            "volatility": quantstats.volatility(series, prepare_returns=False),
            "sharpe": quantstats.sharpe(series),
            "sortino": quantstats.sortino(series),
            "max_drawdown": quantstats.max_drawdown(series),
            "omega": quantstats.omega(series),
            "profit_factor": quantstats.profit_factor(series),
            "normal_var_95": quantstats.value_at_risk(series),
        },
    }


def golden():
    """The small cases that are kept beside the tests."""
    rng = np.random.default_rng(11)
    open_, close = (np.round(x, 4) for x in walk(rng, 31, 3))
    cases = {
        name: {
            "weights": [[None if np.isnan(x) else round(x, 6) for x in row] for row in weights.tolist()],
            "equity": vectorbt_equity(open_, close, np.round(weights, 6)).tolist(),
        }
        for name, weights in books(rng, 30, 3).items()
    }
    series = [np.round(rng.normal(0.0004, s, n), 6) for s, n in ((0.01, 77), (0.02, 376))]
    return {
        "made_with": {"vectorbt": vbt.__version__, "empyrical": empyrical.__version__},
        "account": {"fee": FEE, "slippage": SLIP, "capital": CAPITAL, "open": open_.tolist(), "close": close.tolist()},
        "books": cases,
        "series": [{"returns": r.tolist(), **measures(r)} for r in series],
    }


def compare(label, prices):
    """Largest relative difference of the equity between vectorbt and finseek."""
    from finseek.backtest.options import BacktestOptions
    from finseek.backtest.simulate import simulate
    from finseek.backtest.tape import build_tape

    options = BacktestOptions(transaction_cost=FEE, slippage=SLIP, capital=CAPITAL, shorts=True)
    rows = len(prices.sessions) - 1
    tape = build_tape(prices, 0, rows, options)
    for name, weights in books(np.random.default_rng(5), rows, len(prices.tickers)).items():
        ours = simulate(weights, tape, options).equity
        theirs = vectorbt_equity(prices.adjusted_open, prices.adjusted_close, weights)
        print(f"{label}, {name}: largest relative difference {np.abs(ours / theirs - 1).max():.2e}")


def main():
    """Write the golden file, or compare on larger prices."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--real", type=Path)
    real = parser.parse_args().real
    if real is None:
        Path(__file__).with_name("backtest_oracles.json").write_text(json.dumps(golden()) + "\n")
        return
    from finseek.core.sessions import Sessions
    from finseek.market import Prices, PricesOptions, load_prices

    table = load_prices(real, PricesOptions(benchmark="SPY"))
    rows = slice(-377, None)
    arrays = [getattr(table, name)[rows] for name in ("open", "high", "low", "close", "volume", "adjusted_close")]
    compare("20 x 376 real", Prices(Sessions(table.sessions.dates[rows]), table.tickers, *arrays))
    open_, close = walk(np.random.default_rng(1), 2521, 500)
    dates = Sessions.of(np.datetime64("2010-01-01") + np.arange(2521))
    names = tuple(f"T{k:03d}" for k in range(500))
    flat = np.ones(close.shape)
    compare(
        "500 x 2,520 synthetic",
        Prices(dates, names, open_, np.maximum(open_, close), np.minimum(open_, close), close, flat, close),
    )


if __name__ == "__main__":
    main()
