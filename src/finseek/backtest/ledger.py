"""What the account did, line by line: fills, rejected orders, marks, round trips, and who earned what.

Legend: T+1 rows, N tickers; a round trip of a ticker lasts from the fill that opens a position to the fill that
closes it or turns it over.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from finseek.backtest.simulate import Account
from finseek.backtest.tape import Tape

Floats = NDArray[np.float64]


def _cells(tape: Tape, where: NDArray[np.bool_]) -> tuple[Any, Any, dict[str, Any]]:
    row, column = np.nonzero(where)
    names = pl.Series("ticker", tape.tickers, dtype=pl.String)
    return row, column, {"date": tape.dates[row], "ticker": names.gather(column)}


def fills(account: Account, tape: Tape) -> pl.DataFrame:
    """One line a fill: date, ticker, side, price (adjusted, as quoted), value, slippage, commission, position."""
    row, column, head = _cells(tape, account.traded != 0)
    value = account.traded[row, column]
    return pl.DataFrame(
        {
            **head,
            "side": pl.Series(np.where(value > 0, "buy", "sell"), dtype=pl.String),
            "price": tape.fill[row, column],
            "value": np.abs(value),
            "slippage": account.slippage[row, column],
            "commission": account.commission[row, column],
            "position": account.before[row, column] + value,
        }
    )


def rejects(account: Account, tape: Tape) -> pl.DataFrame:
    """One line an order that did not fill as wanted: date, ticker, reason, wanted and filled money."""
    row, column, head = _cells(tape, account.reason != 0)
    names = pl.Series("reason", account.reasons, dtype=pl.String)
    return pl.DataFrame(
        {
            **head,
            "reason": names.gather(account.reason[row, column].astype(np.int64)),
            "wanted": account.wanted[row, column],
            "filled": account.traded[row, column],
        }
    )


def name_profit(account: Account) -> Floats:
    """Money that each name earned in each row, costs and its income included: (T+1, N).

    With the interest on cash, its sum over names is the change of equity.
    """
    overnight, intraday = legs(account)
    return overnight + intraday - account.slippage - account.commission


def legs(account: Account) -> tuple[Floats, Floats]:
    """Money earned before and after the orders of each row, two arrays (T+1, N); income counts as before."""
    overnight = np.zeros_like(account.held)
    overnight[1:] = account.before[1:] - account.held[:-1]
    return overnight + account.income, account.held - account.before - account.traded


def ledger(account: Account, tape: Tape) -> pl.DataFrame:
    """One line for every name and row with a position, an order or a payment, and one a row for the cash.

    Columns: date, ticker (null on the line of the cash), opening (holding at the fill price), traded, price,
    slippage, commission, income (dividends less borrow fees; on the cash line interest), closing (holding at the
    close; the cash itself on its line), profit. Closings of a date sum to the equity, profits to its change.
    """
    profit = name_profit(account)
    busy = (account.held != 0) | (account.before != 0) | (account.traded != 0) | (account.income != 0)
    row, column, head = _cells(tape, busy)
    arrays = {
        "opening": account.before,
        "traded": account.traded,
        "price": tape.fill,
        "slippage": account.slippage,
        "commission": account.commission,
        "income": account.income,
        "closing": account.held,
        "profit": profit,
    }
    names = pl.DataFrame({**head, **{name: values[row, column] for name, values in arrays.items()}})
    cash = pl.DataFrame(
        {"date": tape.dates, "income": account.interest, "closing": account.cash, "profit": account.interest}
    )
    lines = pl.concat([names, cash], how="diagonal")
    return lines.with_columns(pl.col("price").fill_nan(None)).sort("date", "ticker", nulls_last=True)


TRIPS = {
    "ticker": pl.String,
    "side": pl.String,
    "entry_date": pl.Date,
    "exit_date": pl.Date,
    "entry_price": pl.Float64,
    "exit_price": pl.Float64,
    "sessions": pl.Int64,
    "fills": pl.Int64,
    "max_value": pl.Float64,
    "gross_profit": pl.Float64,
    "costs": pl.Float64,
    "profit": pl.Float64,
    "return_on_value": pl.Float64,
}


def round_trips(account: Account, tape: Tape) -> pl.DataFrame:
    """One line a round trip, by entry date and ticker.

    Columns: ticker, side (long or short), entry_date, exit_date (null while open), entry_price and exit_price
    (adjusted, as quoted), sessions held, fills, max_value (largest position after a fill or at a close),
    gross_profit (income included), costs, profit and return_on_value (profit / max_value). A fill that turns a
    position over closes one trip and opens the next; its costs are split by the money of each part.
    """
    rows, names = account.traded.shape
    # (N · (T+1),): ticker after ticker, so that a trip is one slice
    traded, before, held, cost = (
        values.T.ravel()
        for values in (account.traded, account.before, account.held, account.slippage + account.commission)
    )
    overnight, intraday = (leg.T.ravel() for leg in legs(account))
    position = before + traded
    position = np.where(np.abs(position) > 1e-9 * np.abs(traded), position, 0.0)
    side = np.sign(position)
    turns = np.flatnonzero(np.concatenate([[True], side[1:] != side[:-1]]) | (np.arange(rows * names) % rows == 0))
    ends = np.concatenate([turns[1:], [rows * names]])
    real = side[turns] != 0
    start, end = turns[real], ends[real]
    if not len(start):
        return pl.DataFrame(schema=TRIPS)
    is_open = end % rows == 0
    last = np.where(is_open, end - 1, end)
    opens, closes = _split(traded, before)
    sums = {
        name: np.concatenate([[0.0], np.cumsum(values)])
        for name, values in (
            ("overnight", overnight),
            ("intraday", intraday),
            ("paid", cost),
            ("fills", (traded != 0).astype(np.float64)),
        )
    }

    def between(name: str, low: NDArray[np.int64], high: NDArray[np.int64]) -> Floats:
        difference: Floats = sums[name][high] - sums[name][low]
        return difference

    gross = between("overnight", start + 1, last + 1) + between("intraday", start, end)
    costs = between("paid", start + 1, end) + cost[start] * opens[start]
    costs = costs + np.where(is_open, 0.0, cost[last] * closes[last])
    largest = np.maximum.reduceat(np.maximum(np.abs(position), np.abs(held)), turns)[real]
    column, first_row, last_row = start // rows, start % rows, last % rows
    fill = tape.fill.T.ravel()
    table = pl.DataFrame(
        {
            "ticker": pl.Series(tape.tickers, dtype=pl.String).gather(column),
            "side": np.where(side[start] > 0, "long", "short"),
            "entry_date": tape.dates[first_row],
            "exit_date": np.where(is_open, np.datetime64("NaT"), tape.dates[last_row]),
            "entry_price": fill[start],
            "exit_price": np.where(is_open, np.nan, fill[last]),
            "sessions": last - start,
            "fills": between("fills", start, last + 1).astype(np.int64),
            "max_value": largest,
            "gross_profit": gross,
            "costs": costs,
            "profit": gross - costs,
            "return_on_value": (gross - costs) / largest,
        },
        schema_overrides=TRIPS,
    )
    return table.with_columns(pl.col("exit_price").fill_nan(None)).sort("entry_date", "ticker", maintain_order=True)


def _split(traded: Floats, before: Floats) -> tuple[Floats, Floats]:
    """Share of each order that opens a position, and that closes one."""
    size = np.where(traded != 0, np.abs(traded), 1.0)
    closes = np.where(traded * before < 0, np.minimum(np.abs(before) / size, 1.0), 0.0)
    return 1.0 - closes, closes


def attribution(account: Account, tape: Tape, trades: pl.DataFrame) -> dict[str, Any]:
    """Profit in money by side, ticker and month, and what costs and cash took; each table sums to the total.

    side: long, short (with their costs and income), interest. ticker and month: as in ``ledger``. costs: commission,
    slippage, borrow fees and dividends together as income, interest.
    """
    profit = name_profit(account)
    by_side = {side: float(trades.filter(pl.col("side") == side)["profit"].sum()) for side in ("long", "short")}
    months = tape.dates.astype("datetime64[M]")
    by_row = profit.sum(axis=1) + account.interest
    total = float(account.equity[-1] - account.equity[0])
    return {
        "total": total,
        "side": {**by_side, "interest": float(account.interest.sum())},
        "ticker": dict(zip(tape.tickers, profit.sum(axis=0).tolist(), strict=True)),
        "month": {str(month): float(by_row[months == month].sum()) for month in np.unique(months[1:])},
        "costs": {
            "commission": float(account.commission.sum()),
            "slippage": float(account.slippage.sum()),
            "income": float(account.income.sum()),
            "interest": float(account.interest.sum()),
        },
    }
