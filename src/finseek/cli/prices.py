"""``finseek prices fetch|import|check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from finseek.cli.shared import JsonOption, SetOption

ERRORS_SHOWN = 40


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        help="Bring prices in and check them.",
        no_args_is_help=True,
        epilog="Example: finseek prices check prices.parquet --theses raw_xml",
    )
    group.command("fetch")(fetch)
    group.command("import")(import_prices)
    group.command("check")(check)
    app.add_typer(group, name="prices")


def fetch(
    config: Annotated[Optional[Path], typer.Argument(help="YAML config; without it, --set and the options.")] = None,  # noqa: UP045
    tickers: Annotated[Optional[str], typer.Option(help="Comma-separated; without it, those of the theses.")] = None,  # noqa: UP045
    start: Annotated[Optional[str], typer.Option(metavar="DATE", help="First day; else from the theses.")] = None,  # noqa: UP045
    end: Annotated[Optional[str], typer.Option(metavar="DATE", help="Last day; else from the theses.")] = None,  # noqa: UP045
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch daily prices into the store; only what is missing is asked for, and a kill loses nothing.

    The key of eodhd is read from EODHD_API_KEY, in the environment or in .env.

    Example: finseek prices fetch --tickers AMZN,T --start 2023-01-01 --end 2024-12-31 --set prices.provider=eodhd
    """
    from datetime import UTC, date, datetime

    from finseek.cli.shared import load
    from finseek.cli.terminal import TerminalProgress, print_json, print_table
    from finseek.core.errors import InputError
    from finseek.market.fetch import fetch_prices, range_around

    def day(text: str, option: str) -> date:
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise InputError(f"{option} {text!r} is not a date like 2024-12-31") from None

    loaded = load(config, assignments)
    options = loaded.config
    names = [name.strip().upper() for name in (tickers or "").split(",") if name.strip()]
    first, last = (day(start, "--start") if start else None), (day(end, "--end") if end else None)
    if not names or first is None or last is None:
        from finseek.theses import read_theses

        if options.theses.source is None:
            raise InputError("give --tickers, --start and --end, or theses.source to take them from")
        theses, _ = read_theses(options.theses.source, options.theses)
        if not theses:
            raise InputError(f"theses.source {options.theses.source} holds no thesis to take tickers and dates from")
        dates = [thesis.as_of_date for thesis in theses]
        around = range_around(min(dates), max(dates))
        names = names or sorted({thesis.ticker for thesis in theses})
        first, last = first or around[0], last or around[1]
    key = loaded.secrets.get("EODHD_API_KEY")
    progress = TerminalProgress()
    now = datetime.now(UTC)
    try:
        outcomes = fetch_prices(
            names, first, min(last, now.date()), options.prices, now=now, key=_secret(key), progress=progress
        )
    finally:
        progress.finish()
    if as_json:
        print_json([outcome.to_json() for outcome in outcomes])
    else:
        rows = [(o.ticker, o.symbol, o.status, o.bars, o.first, o.last, o.message) for o in outcomes]
        print_table("Prices", ("ticker", "symbol", "status", "bars", "first", "last", "message"), rows)
    if any(outcome.status in ("failed", "not tried") for outcome in outcomes):
        raise typer.Exit(1)


def _secret(key: str | None) -> Any:
    from pydantic import SecretStr

    return SecretStr(key) if key else None


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
    from finseek.pipeline.config_file import load_config

    prices = load_prices(source, load_config(None, assignments or ()).config.prices)
    write_prices(prices, out)
    summary = describe_prices(prices)
    if as_json:
        print_json(summary)
    else:
        print_table(f"Prices in {out}", ("", "value"), [(name, value) for name, value in summary.items()])


def check(
    source: Annotated[Path, typer.Argument(help="Price table, CSV or Parquet.")],
    theses: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Theses whose quoted closes are compared with the table."),
    ] = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for gaps, duplicates, impossible bars, jumps, stale runs and quotes that don't match; exit 1 on errors.

    Example: finseek prices check prices.parquet --theses raw_xml
    """
    from finseek.cli.terminal import print_json, print_table
    from finseek.market.check import check_file
    from finseek.market.quotes import Quote, quoted_close
    from finseek.pipeline.config_file import load_config
    from finseek.theses import read_theses

    options = load_config(None, assignments or ()).config
    quotes = []
    for thesis in read_theses(theses, options.theses)[0] if theses else ():
        close = quoted_close(thesis.reasoning)
        if close is not None:
            quotes.append(Quote(thesis.ticker, thesis.as_of_date, close))
    report = check_file(source, options.prices, quotes)
    if as_json:
        print_json(report.to_json())
    else:
        rows = [tuple(str(value) for value in finding.to_json().values()) for finding in report.findings]
        if rows:
            columns = list(report.findings[0].to_json())
            print_table(f"Findings in {source}", columns, rows[:ERRORS_SHOWN])
        if len(rows) > ERRORS_SHOWN:
            print(f"{len(rows) - ERRORS_SHOWN} more findings (--json shows all)")
        print(f"{report.rows:,} rows of {report.tickers} tickers: {report.errors} errors, "
              f"{len(report.findings) - report.errors} warnings")  # fmt: skip
    if report.errors:
        raise typer.Exit(1)
