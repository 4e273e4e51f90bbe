"""``finseek prices import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finseek.cli.run import JsonOption, SetOption


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(help="Bring prices in and check them.", no_args_is_help=True)
    group.command("import")(import_prices)
    group.callback()(lambda: None)
    app.add_typer(group, name="prices")


def import_prices(
    source: Annotated[Path, typer.Argument(help="Price table, CSV or Parquet.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write.")],
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a price table and write it as the Parquet file that finseek reads.

    Example: finseek prices import mine.csv --out prices.parquet
    """
    from finseek.cli.terminal import print_json, print_table
    from finseek.market import describe_prices, load_prices, write_prices
    from finseek.pipeline.config import load_config

    prices = load_prices(source, load_config(None, assignments or ()).config.prices)
    write_prices(prices, out)
    summary = describe_prices(prices)
    if as_json:
        print_json(summary)
    else:
        print_table(f"Prices in {out}", ("", "value"), [(name, value) for name, value in summary.items()])
