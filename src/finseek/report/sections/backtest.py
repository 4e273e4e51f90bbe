"""The simulated account: equity, drawdown, both readings of HOLD, costs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from finseek.core.errors import ArtifactError
from finseek.report.blocks import Block, Cell, Chart, Matrix, Notice, Section, Table
from finseek.report.charts import Line, chart
from finseek.report.figures import Figures
from finseek.report.inputs import Json, ReportInputs
from finseek.report.numbers import Format, finite, number2, percent, signed_percent
from finseek.report.sections.ledger import called, ledger_blocks

LEAD = (
    "An account that reads each answer after the close and trades at the next open, with fee and slippage. Beside it "
    "stand the same universe bought and held, every answer read as BUY, and the same signals with the other reading of "
    "HOLD: flat closes an open position, keep leaves it."
)
TONES = {"strategy": 1, "buy_and_hold": 2, "hold_keep": 3, "hold_flat": 3, "all_buy": 5}
SHOWN = ("strategy", "hold_flat", "hold_keep", "buy_and_hold", "all_buy")
_SERIES = {
    "equity": "strategy",
    "hold_flat": "hold_flat",
    "hold_keep": "hold_keep",
    "buy_and_hold": "buy_and_hold",
    "all_buy": "all_buy",
}
_BRIEF = ("total_return", "volatility", "sharpe", "max_drawdown", "turnover_daily")
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()

_MEASURES: tuple[tuple[str, str, Format, str], ...] = (
    ("total_return", "Total return", signed_percent, "over the whole test, costs paid"),
    ("annual_return", "Annual return", signed_percent, "the same, compounded to a year"),
    ("volatility", "Volatility", percent, "how much a year's return varies"),
    ("sharpe", "Sharpe", number2, "return over volatility, annual, flat days included"),
    ("sortino", "Sortino", number2, "the same, counting losing days alone as risk"),
    ("calmar", "Calmar", number2, "annual return over the largest drawdown"),
    ("max_drawdown", "Largest drawdown", percent, "deepest fall from a highest close"),
    ("hit_rate_days", "Days gained", percent, "share of the days that moved which gained"),
    ("turnover_daily", "Daily turnover", percent, "bought and sold in a day, of equity"),
    ("gross_exposure", "Gross exposure", percent, "invested on average, long plus short, of equity"),
    ("net_exposure", "Net exposure", percent, "invested on average, long less short, of equity"),
)


def drawdown(equity: Sequence[float | None]) -> list[float | None]:
    """Distance to the highest equity so far, as a fraction (0 or negative)."""
    seen = [0.0 if value is None else value for value in equity]
    return [
        None if value is None else value / peak - 1 for value, peak in zip(equity, accumulate(seen, max), strict=True)
    ]


def section(inputs: ReportInputs, figures: Figures) -> Section:
    """Performance against its benchmarks."""
    if not figures.accounts:
        return Section("backtest", "Backtest", LEAD, [Notice("No backtest: no account was simulated in this run.")])
    blocks: list[Block] = [*_survivorship(inputs.prices), *_performance(figures)]
    table = inputs.equity
    if table is not None and not {"date", "equity"} <= table.keys():
        raise ArtifactError(f"the equity table holds {', '.join(table)}; it needs date and equity: make it again")
    if table and table["date"]:
        months = monthly(table["date"], numbers(table, "equity"))
        blocks += [*_curves(table), *([months] if months else []), *_exposure(table)]
    return Section("backtest", "Backtest", LEAD, [*blocks, *ledger_blocks(inputs.backtest or {}, figures)])


def _survivorship(prices: Json | None) -> list[Block]:
    warning = (prices or {}).get("survivorship_warning")
    return [Notice(f"A universe of survivors: {warning}.", "caution")] if warning else []


def _performance(figures: Figures) -> list[Block]:
    main = [account for account in figures.accounts if account.name in SHOWN]
    more = [account for account in figures.accounts if account.name not in SHOWN]
    table = Table(
        "Performance of the accounts",
        "All accounts trade the same sessions and pay the same fee and slippage; a dash means that a measure is not "
        "defined.",
        ["Measure", *(called(account.name) for account in main), "Meaning"],
        [
            [title, *(shown(account.metrics.get(key)) for account in main), meaning]
            for key, title, shown, meaning in _MEASURES
            if any(finite(account.metrics.get(key)) is not None for account in main)
        ],
        text=frozenset({0, len(main) + 1}),
    )
    if not more:
        return [table]
    brief = [measure for measure in _MEASURES if measure[0] in _BRIEF]
    return [
        table,
        Table(
            "Other rules on the same sessions",
            "What simple rules would have earned in the same account, at the same costs.",
            ["Rule", *(title for _, title, _, _ in brief)],
            [[called(a.name), *(shown(a.metrics.get(key)) for key, _, shown, _ in brief)] for a in more],
        ),
    ]


def numbers(table: Json, column: str) -> list[float | None]:
    """A column of the equity table, None where a value is absent."""
    return [finite(value) for value in table[column]]


def _curves(table: Json) -> list[Chart]:
    dates = [str(day) for day in table["date"]]
    at = list(map(float, range(len(dates))))
    lines, falls = [], []
    for column, name in _SERIES.items():
        if column not in table:
            continue
        values = numbers(table, column)
        start = next((value for value in values if value), None)
        grown = [None if v is None or start is None else v / start - 1 for v in values]
        main = name in ("strategy", "buy_and_hold")
        lines.append(Line(called(name), grown, TONES[name], "line" if main else "dashed"))
        if main:
            falls.append(Line(called(name), drawdown(values), TONES[name], "area" if name == "strategy" else "line"))
    return [
        chart(
            "chart-equity",
            "Equity since the first decision",
            "Gain or loss of each account since its first decision, at each close, costs paid.",
            at,
            dates,
            lines,
            signed_percent,
            x_title="session",
            zero=True,
        ),
        chart(
            "chart-drawdown",
            "Drawdown",
            "How far each account stands below its own highest close; the deepest point is what its owner had to "
            "endure.",
            at,
            dates,
            falls,
            percent,
            x_title="session",
            zero=True,
        ),
    ]


def _exposure(table: Json) -> list[Chart]:
    if "gross_exposure" not in table:
        return []
    dates = [str(day) for day in table["date"]]
    lines = [
        Line("gross", numbers(table, "gross_exposure"), 1, "area"),
        Line("net", numbers(table, "net_exposure"), 2, "dashed"),
    ]
    return [
        chart(
            "chart-exposure",
            "Exposure",
            "Share of the account that is invested at each close: gross adds long and short positions, net "
            "subtracts the short ones.",
            list(map(float, range(len(dates)))),
            dates,
            lines,
            percent,
            x_title="session",
            zero=True,
        )
    ]


def monthly(dates: Sequence[str], values: Sequence[float | None]) -> Matrix | None:
    """Returns by month and year, each month counted from the last close before it."""
    ends: dict[tuple[str, int], float] = {}
    for day, value in zip(dates, values, strict=True):
        if value is not None:
            ends[day[:4], int(day[5:7])] = value
    before = next((value for value in values if value is not None), None)
    if not before:
        return None
    gains: dict[tuple[str, int], float] = {}
    whole: dict[str, float] = {}
    for (year, month), end in ends.items():
        gains[year, month], before = end / before - 1, end
        whole[year] = (1 + whole.get(year, 0.0)) * (1 + gains[year, month]) - 1
    largest = max(map(abs, gains.values())) or 1.0
    rows = []
    for year, gain in whole.items():
        months = [_tinted(gains.get((year, month)), largest) for month in range(1, 13)]
        rows.append((year, [Cell(signed_percent(gain)), *months]))
    return Matrix(
        "Return of the strategy by month",
        "Each cell is the change of equity from the last close of the month before; "
        "blue is a gain, red a loss, and the deeper the larger.",
        "Year",
        ["All months", *MONTHS],
        rows,
    )


def _tinted(gain: float | None, largest: float) -> Cell:
    if gain is None:
        return Cell("")
    return Cell(signed_percent(gain), round(abs(gain) / largest * 100), "loss" if gain < 0 else "main")
