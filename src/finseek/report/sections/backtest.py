"""The simulated account: equity, drawdown, both readings of HOLD, costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate

from finseek.report.blocks import Block, Cell, Chart, Matrix, Notice, Section, Table
from finseek.report.charts import Line, chart
from finseek.report.figures import Figures
from finseek.report.inputs import Json, ReportInputs
from finseek.report.numbers import Format, finite, integer, money, number2, percent, percent2, signed_percent

LEAD = (
    "An account that reads each answer after the close and trades at the next open, with fee and slippage. Beside it "
    "stand the same universe bought and held, every answer read as BUY, and the same signals with the other reading of "
    "HOLD: flat closes an open position, keep leaves it."
)
NAMES = {
    "strategy": "strategy",
    "hold_flat": "with HOLD flat",
    "hold_keep": "with HOLD keep",
    "buy_and_hold": "buy-and-hold",
    "all_buy": "all BUY",
    "all_sell": "all SELL",
    "teacher": "teacher",
    "benchmark": "index",
    "cash": "cash",
}
TONES = {"strategy": 1, "buy_and_hold": 2, "hold_keep": 3, "hold_flat": 3, "teacher": 4, "all_buy": 5, "benchmark": 6}
_SERIES = {
    "equity": "strategy",
    "hold_flat": "hold_flat",
    "hold_keep": "hold_keep",
    "buy_and_hold": "buy_and_hold",
    "all_buy": "all_buy",
}
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


def called(name: str) -> str:
    """An account's name as the page says it."""
    return NAMES.get(name, name.replace("_", " "))


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
    blocks: list[Block] = [_performance(figures)]
    table = inputs.equity
    if table and table.get("date"):
        months = monthly(table["date"], numbers(table, "equity"))
        blocks += [*_curves(table), *([months] if months else []), *_exposure(table)]
    blocks.append(_costs(figures))
    signals = _signals(inputs.backtest or {})
    return Section("backtest", "Backtest", LEAD, [*blocks, *([signals] if signals else [])])


def _performance(figures: Figures) -> Table:
    accounts = figures.accounts
    return Table(
        "Performance of the accounts",
        "All accounts trade the same sessions and pay the same fee and slippage; a dash means that a measure is not "
        "defined.",
        ["Measure", *(called(account.name) for account in accounts), "Meaning"],
        [
            [title, *(shown(account.metrics.get(key)) for account in accounts), meaning]
            for key, title, shown, meaning in _MEASURES
            if any(finite(account.metrics.get(key)) is not None for account in accounts)
        ],
        text=frozenset({0, len(accounts) + 1}),
    )


def _costs(figures: Figures) -> Table:
    return Table(
        "Costs",
        "What each account paid in fees, and lost to worse prices at its fills (slippage), in money and as a share "
        "of its starting capital.",
        ["Account", "Fees", "Slippage", "Together", "Of capital", "Round trips"],
        [
            [
                called(account.name),
                *(money(account.metrics.get(key)) for key in ("commission_paid", "slippage_paid", "costs_paid")),
                percent2(account.metrics.get("costs_of_capital")),
                integer(account.metrics.get("trades_closed")),
            ]
            for account in figures.accounts
        ],
    )


def _signals(backtest: Json) -> Table | None:
    rows = [
        [str(name).replace("_", " "), integer(count)]
        for part in ("signals", "orders")
        for name, count in (backtest.get(part) or {}).items()
    ]
    if not rows:
        return None
    return Table(
        "Signals and orders",
        "What became of the answers: a signal without a next session is never executed, and a ticker and day "
        "without a signal keep their position until it expires.",
        ["What", "Count"],
        rows,
    )


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
            "chart-equity", "Equity since the first decision",
            "Gain or loss of each account since its first decision, at each close, costs paid.",
            at, dates, lines, signed_percent, x_title="session", zero=True,
        ),
        chart(
            "chart-drawdown", "Drawdown",
            "How far each account stands below its own highest close; the deepest point is what its owner had to "
            "endure.",
            at, dates, falls, percent, x_title="session", zero=True,
        ),
    ]  # fmt: skip


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
            "chart-exposure", "Exposure",
            "Share of the account that is invested at each close: gross adds long and short positions, net "
            "subtracts the short ones.",
            list(map(float, range(len(dates)))), dates, lines, percent, x_title="session", zero=True,
        )
    ]  # fmt: skip


def monthly(dates: Sequence[str], values: Sequence[float | None]) -> Matrix | None:
    """Returns by month and year, each month counted from the last close before it."""
    ends: dict[tuple[str, int], float] = {}
    for day, value in zip(dates, values, strict=True):
        if value is not None:
            ends[day[:4], int(day[5:7])] = value
    before = next((value for value in values if value is not None), None)
    if not before:
        return None
    start = before
    gains: dict[tuple[str, int], float] = {}
    whole: dict[str, float] = {}
    for (year, month), end in ends.items():
        gains[year, month], before = end / before - 1, end
        whole[year] = (1 + whole.get(year, 0.0)) * (1 + gains[year, month]) - 1
    assert abs(before / start - _compounded(whole.values())) < 1e-9
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
        ["Whole year", *MONTHS],
        rows,
    )


def _compounded(gains: Iterable[float]) -> float:
    return math.prod(1 + gain for gain in gains)


def _tinted(gain: float | None, largest: float) -> Cell:
    if gain is None:
        return Cell("")
    return Cell(signed_percent(gain), round(abs(gain) / largest * 100), "loss" if gain < 0 else "main")
