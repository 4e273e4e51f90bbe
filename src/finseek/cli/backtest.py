"""``finseek backtest``: the stage of a config, or any signals on any prices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from finseek.cli.run import JsonOption, SetOption


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("backtest", short_help="Trade signals in a simulated account, costs paid.")(backtest)


def backtest(
    context: typer.Context,
    config: Annotated[Optional[Path], typer.Argument(help="YAML config of a run.")] = None,  # noqa: UP045
    signals: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="CSV or Parquet of ticker, as_of_date and action or weight; eval_results.csv too."),
    ] = None,
    prices: Annotated[Optional[Path], typer.Option(help="Price table, CSV or Parquet.")] = None,  # noqa: UP045
    out: Annotated[
        Path | None, typer.Option(help="Folder for equity.csv, trades.csv, ledger.csv, metrics.json …")
    ] = None,
    points: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--sweep", metavar="KEY=A,B,…", help="Backtest every combination, as in slippage=0,0.001."),
    ] = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trade signals: decided after the close of t, filled at the open of t+1, marked at the close.

    With a config, the stage of that run. With --signals, --prices and --out, any signals, no pipeline; the universe
    is then the tickers of the signals. With --sweep each point of a config's run is a trial in its chain.

    Example: finseek backtest --signals mine.csv --prices prices.parquet --out bt --set backtest.shorts=true
    """
    from finseek.cli.run import run
    from finseek.core.errors import InputError

    if points:
        _sweep(context, config, signals, prices, out, points, assignments, as_json)
        return
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


def _sweep(
    context: typer.Context,
    config: Path | None,
    signals: Path | None,
    prices: Path | None,
    out: Path | None,
    points: list[str],
    assignments: list[str] | None,
    as_json: bool,
) -> None:
    """Backtest a grid of settings; with a config, on the answers of its run, each point a trial in the chain."""
    from finseek.backtest import read_signals, sweep, write_sweep
    from finseek.cli.run import execute
    from finseek.cli.terminal import TerminalProgress, print_heat_map, print_json, print_table
    from finseek.core.errors import InputError
    from finseek.market import load_prices
    from finseek.pipeline.config import load_config
    from finseek.pipeline.trials import record_sweep, refuse_locked_look

    grid = _grid(points)
    if config is not None:
        result = execute(context, config, last="backtest", assignments=assignments)
        options, given = result.config, read_signals(result.paths.evaluate / "eval_results.csv")
        table = load_prices(result.paths.prices / "prices.parquet", options.prices.model_copy(update={"columns": {}}))
        out = out or result.paths.root / "sweep"
        refuse_locked_look(options, result.paths, "sweep")
    elif signals is None or prices is None or out is None:
        raise InputError("give either CONFIG, or all of --signals FILE --prices FILE --out DIR")
    else:
        options, given = load_config(None, assignments or ()).config, read_signals(signals)
        table = load_prices(prices, options.prices, sorted({signal.ticker for signal in given}))
    progress = TerminalProgress()
    try:
        found = sweep(given, table, options.backtest, grid, progress)
    finally:
        progress.finish()
    if config is not None:  # before anybody can have seen a figure
        record_sweep(options, result.paths, found)
    write_sweep(found, out)
    if as_json:
        print_json(found.metrics.to_dicts())
        return
    shown = [*grid, "total_return", "sharpe", "max_drawdown"]
    rows = [
        ["–" if value is None else f"{value:.4g}" if isinstance(value, float) else value for value in row]
        for row in found.metrics.select(shown).rows()
    ]
    print_table(f"Sweep of {len(found.points)} points", shown, rows)
    if len(grid) > 1:
        across, down, *rest = grid
        over = f", mean over {', '.join(rest)}" if rest else ""
        heat = found.heat_map(across, down)
        print_heat_map(f"Sharpe by {down} (down) and {across} (across){over}", heat.columns, heat.rows())
    print(f"files: {out}")


def _grid(points: list[str]) -> dict[str, list[object]]:
    """The values of each key of ``--sweep KEY=a,b,c``, in the order in which they were given."""
    from finseek.core.errors import InputError
    from finseek.pipeline.overrides import from_arguments

    grid: dict[str, list[object]] = {}
    for point in points:
        name, _, values = (part.strip() for part in point.partition("="))
        key = name.removeprefix("backtest.")
        if not key or not values:
            raise InputError(f"--sweep {point!r} is not KEY=VALUES, as in --sweep slippage=0,0.001,0.002")
        if key in grid:
            raise InputError(f"--sweep names {key} twice: give all of its values at once, as in {key}=0,0.001")
        (override,) = from_arguments([f"backtest.{key}={values if values.startswith('[') else f'[{values}]'}"])
        grid[key] = override.value
    return grid
