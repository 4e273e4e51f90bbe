"""Write backtest_oracles.json: run by hand in an environment with vectorbt 1.2.0, empyrical-reloaded and quantstats.

    python make_backtest_oracles.py PRICES.parquet

Of the real prices nothing is kept but the last equity of three random books.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import empyrical
import numpy as np
import pandas as pd
import quantstats.stats as quantstats
import vectorbt as vbt
from backtest_books import REAL_ROWS, STRIDE, books, large, walk

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


def small():
    """Three names on thirty decisions, prices and weights included."""
    rng = np.random.default_rng(11)
    open_, close = (np.round(x, 4) for x in walk(rng, 31, 3))
    cases = {
        name: {
            "weights": [[None if np.isnan(x) else round(x, 6) for x in row] for row in weights.tolist()],
            "equity": vectorbt_equity(open_, close, np.round(weights, 6)).tolist(),
        }
        for name, weights in books(rng, 30, 3).items()
    }
    account = {"fee": FEE, "slippage": SLIP, "capital": CAPITAL, "open": open_.tolist(), "close": close.tolist()}
    series = [np.round(rng.normal(0.0004, s, n), 6) for s, n in ((0.01, 77), (0.02, 376))]
    return {
        "account": account,
        "books": cases,
        "series": [{"returns": r.tolist(), **measures(r)} for r in series],
    }


def real(file):
    """Adjusted opens and closes of the 20 names, as a long table pivots to them."""
    table = pd.read_parquet(file)
    table = table[table["ticker"] != "SPY"].assign(
        adjusted_open=lambda t: t["open"] * (t["adjusted_close"] / t["close"])
    )
    columns = (table.pivot(index="date", columns="ticker", values=name) for name in ("adjusted_open", "adjusted_close"))
    return tuple(column.to_numpy()[-REAL_ROWS:] for column in columns)


def main():
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prices", type=Path, help="the real prices")
    open_, close = real(parser.parse_args().prices)
    real_books = books(np.random.default_rng(5), len(close) - 1, close.shape[1])
    many_open, many_close, many_books = large()
    golden = {
        "made_with": {name: version(name) for name in ("vectorbt", "empyrical-reloaded", "quantstats")},
        **small(),
        "large": {
            name: vectorbt_equity(many_open, many_close, weights)[::STRIDE].tolist()
            for name, weights in many_books.items()
        },
        "real": {name: vectorbt_equity(open_, close, weights)[-1] for name, weights in real_books.items()},
    }
    Path(__file__).with_name("backtest_oracles.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
