"""``finseek backtest``: the stage of a config, or any signals on any prices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from finseek.cli.run import JsonOption, SetOption


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("backtest")(backtest)


def backtest(
    context: typer.Context,
    config: Annotated[Optional[Path], typer.Argument(help="YAML config of a run.")] = None,  # noqa: UP045
    signals: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="CSV or Parquet of ticker, as_of_date and action or weight; eval_results.csv too."),
    ] = None,
    prices: Annotated[Optional[Path], typer.Option(help="Price table, CSV or Parquet.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="Folder for equity.csv, trades.csv, metrics.json.")] = None,  # noqa: UP045
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trade signals: decided after the close of t, filled at the open of t+1, marked at the close.

    With a config, the stage of that run. With --signals, --prices and --out, any signals, no pipeline; the universe
    is then the tickers of the signals.

    Example: finseek backtest --signals mine.csv --prices prices.parquet --out bt --set backtest.shorts=true
    """
    from finseek.cli.run import run
    from finseek.core.errors import InputError

    if config is not None and signals is None and prices is None and out is None:
        run(context, config, last="backtest", assignments=assignments, as_json=as_json)
        return
    if config is not None or signals is None or prices is None or out is None:
        raise InputError("give either CONFIG, or all of --signals FILE --prices FILE --out DIR")

    from finseek.backtest import read_signals, run_backtest, write_result
    from finseek.cli.summary import print_backtest
    from finseek.market import load_prices
    from finseek.pipeline.config import load_config

    options = load_config(None, assignments or ()).config
    given = read_signals(signals)
    universe = sorted({signal.ticker for signal in given})
    result = run_backtest(given, load_prices(prices, options.prices, universe), options.backtest)
    write_result(result, out)
    print_backtest(result.metrics, out, as_json=as_json)
