"""``finseek backtest``: the stage of a config, or any signals on any prices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from finseek.cli.shared import JsonOption, SetOption, execute, watched

if TYPE_CHECKING:
    from finseek.backtest import SweepResult


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
    is then the tickers of the signals, and the look is added to the trials beside the folder. With --sweep each point
    is a trial.

    Example: finseek backtest --signals mine.csv --prices prices.parquet --out bt --set backtest.shorts=true
    """
    from finseek.core.errors import InputError

    grid = _grid(points) if points else None
    if config is not None and not (signals or prices or (out and not grid)):
        _of_run(context, config, out, grid, assignments, as_json)
    elif config is None and signals and prices and out:
        _of_files(context, signals, prices, out, grid, assignments, as_json)
    else:
        raise InputError("give either CONFIG, or all of --signals FILE --prices FILE --out DIR")


Grid = dict[str, list[object]]


def _of_run(
    context: typer.Context,
    config: Path,
    out: Path | None,
    grid: Grid | None,
    assignments: list[str] | None,
    as_json: bool,
) -> None:
    """The answers of a config's run; a sweep of them has a folder of its own."""
    from finseek.cli.summary import print_summary
    from finseek.pipeline.judging import sweep_the_answers

    run = execute(context, config, "backtest", assignments)
    if grid is None:
        print_summary(run, as_json=as_json)
        return
    out = out or run.paths.root / "sweep"
    with watched(context) as (progress, _):
        found = sweep_the_answers(run.config, run.paths, out, grid, progress)
    _print_sweep(found, grid, out, as_json)


def _of_files(
    context: typer.Context,
    signals: Path,
    prices: Path,
    out: Path,
    grid: Grid | None,
    assignments: list[str] | None,
    as_json: bool,
) -> None:
    """Any signals on any prices."""
    from finseek.cli.summary import print_backtest
    from finseek.pipeline.config_file import load_config
    from finseek.pipeline.standalone import backtest_file, sweep_file

    options = load_config(None, assignments or ()).config
    with watched(context) as (progress, _):
        if grid is None:
            metrics, recorded = backtest_file(options, signals, prices, out, progress)
        else:
            found, recorded = sweep_file(options, signals, prices, out, grid, progress)
    if grid is None:
        print_backtest(metrics, out, as_json=as_json)
    else:
        _print_sweep(found, grid, out, as_json)
    if not as_json:
        print(f"trials on these test data: {recorded.trials} ({recorded.chain})")


def _print_sweep(found: SweepResult, grid: Grid, out: Path, as_json: bool) -> None:
    from finseek.cli.terminal import print_heat_map, print_json, print_table

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


def _grid(points: list[str]) -> Grid:
    """The values of each key of ``--sweep KEY=a,b,c``, in the order in which they were given."""
    from finseek.core.errors import InputError
    from finseek.pipeline.overrides import from_arguments

    grid: Grid = {}
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
