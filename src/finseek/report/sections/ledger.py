"""What stands behind the account's curve: costs, drawdowns, where the profit came from, what became of the signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finseek.report.blocks import Block, Group, Table
from finseek.report.figures import Figures
from finseek.report.inputs import Json
from finseek.report.numbers import (
    ABSENT,
    finite,
    integer,
    money,
    number2,
    percent,
    percent2,
    signed_money,
    signed_percent,
)

NAMES = {
    "strategy": "strategy",
    "hold_flat": "with HOLD flat",
    "hold_keep": "with HOLD keep",
    "buy_and_hold": "buy-and-hold",
    "all_buy": "all BUY",
    "cash_only": "cash",
}
MOST_TICKERS = 10
_SIGNALS = {
    "given": "answers given",
    "traded": "of them, read by the account",
    "no_signal": "of them, without a readable action",
    "unexecuted": "of them, without a next session",
    "cells_without_signal": "days of a ticker without an answer",
    "filled": "orders filled",
}


def called(name: str) -> str:
    """An account's name as the page says it."""
    return NAMES.get(name, name.replace("_", " "))


def ledger_blocks(backtest: Json, figures: Figures) -> list[Block]:
    """The blocks of one account, those that its metrics have."""
    drawdowns = _drawdowns(backtest.get("drawdowns") or ())
    small = [
        _relative(backtest.get("relative") or {}),
        _attribution(backtest.get("attribution") or {}),
        _signals(backtest),
    ]
    wide = [_costs(figures, (backtest.get("options") or {}).get("capital")), *([drawdowns] if drawdowns else [])]
    return [*wide, Group([table for table in small if table is not None])]


def _costs(figures: Figures, capital: float | None) -> Table:
    start = f" of {money(capital)}" if capital is not None else ""
    return Table(
        "Costs",
        "What each account paid in fees, and lost to worse prices at its fills (slippage), in money and as a share "
        f"of its starting capital{start}.",
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


def _drawdowns(found: Sequence[Json]) -> Table | None:
    if not found:
        return None
    return Table(
        "Deepest drawdowns",
        "The account's deepest falls from a highest close, and when it stood as high again.",
        ["Depth", "Peak", "Valley", "Recovered", "Sessions"],
        [
            [percent(one["depth"]), one["peak"], one["valley"], one["recovery"] or "not yet", integer(one["sessions"])]
            for one in found
        ],
        text=frozenset({1, 2, 3}),
    )


def _relative(found: Mapping[str, Any]) -> Table | None:
    if not found:
        return None
    against = called(str(found.get("benchmark", ABSENT)))
    rows = [
        ["Beta", number2(found.get("beta")), f"part of each move of {against} that the account shares"],
        ["Alpha a year", signed_percent(found.get("alpha_annual")), "return that this does not explain"],
        ["Correlation", number2(found.get("correlation")), "1 moves along, 0 is unrelated"],
        ["Tracking error", percent(found.get("tracking_error")), "how far the two drift apart in a year"],
        ["Information ratio", number2(found.get("information_ratio")), "difference in return over that drift"],
    ]
    explain = "How closely the account follows the market, and what it earns beside it."
    return Table(f"Against {against}", explain, ["Measure", "Value", "Meaning"], rows, text=frozenset({0, 2}))


def _attribution(found: Mapping[str, Any]) -> Table | None:
    tickers = found.get("ticker")
    if not tickers:
        return None
    ranked = sorted(tickers.items(), key=lambda pair: -abs(pair[1]))
    rows = [[str(ticker), signed_money(profit)] for ticker, profit in ranked[:MOST_TICKERS]]
    rest = [profit for _, profit in ranked[MOST_TICKERS:]]
    if rest:
        rows.append([f"{integer(len(rest))} other tickers", signed_money(sum(rest))])
    sides = [
        [f"all {side} positions", signed_money(profit)] for side, profit in (found.get("side") or {}).items() if profit
    ]
    return Table(
        "Where the profit came from",
        "Profit in money after costs, of the tickers that mattered most, then by side, then what costs took of it.",
        ["What", "Profit"],
        [*rows, *sides, *_before_costs(found), ["all together", signed_money(found.get("total"))]],
    )


def _before_costs(found: Mapping[str, Any]) -> list[list[str]]:
    """What the account would have made without fees and slippage, and each of them."""
    costs, total = found.get("costs") or {}, finite(found.get("total"))
    fees, slippage = finite(costs.get("commission")), finite(costs.get("slippage"))
    if total is None or fees is None or slippage is None:
        return []
    return [
        ["before costs", signed_money(total + fees + slippage)],
        ["fees", signed_money(-fees)],
        ["slippage", signed_money(-slippage)],
    ]


def _signals(backtest: Json) -> Table | None:
    rows = [
        [_SIGNALS.get(str(name), str(name).replace("_", " ")), integer(count)]
        for part in ("signals", "orders")
        for name, count in (backtest.get(part) or {}).items()
    ]
    if not rows:
        return None
    return Table(
        "Signals and orders",
        "What became of the answers: one without a next session is never executed, and a ticker keeps its position "
        "on days without an answer until that expires.",
        ["What", "Count"],
        rows,
    )
