"""What the account did, line by line: fills, rejected orders and round trips.

Legend: T+1 rows, N tickers; a round trip of a ticker lasts from the fill that opens a position to the fill that
closes it or turns it over.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from finseek.backtest.simulate import Account
from finseek.backtest.tape import Tape

Floats = NDArray[np.float64]


def fills(account: Account, tape: Tape) -> pl.DataFrame:
    """One line a fill: date, ticker, side, price (adjusted, as quoted), value, slippage, commission, position."""
    row, column = np.nonzero(account.traded)
    value = account.traded[row, column]
    return pl.DataFrame(
        {
            "date": tape.dates[row],
            "ticker": np.array(tape.tickers, dtype=object)[column].tolist(),
            "side": np.where(value > 0, "buy", "sell"),
            "price": tape.fill[row, column],
            "value": np.abs(value),
            "slippage": account.slippage[row, column],
            "commission": account.commission[row, column],
            "position": account.before[row, column] + value,
        },
        schema_overrides={"ticker": pl.String, "side": pl.String},
    )


def rejects(account: Account, tape: Tape) -> pl.DataFrame:
    """One line an order that did not fill as wanted: date, ticker, reason, wanted and filled money."""
    short_of = np.abs(account.wanted - account.traded) > 1e-9 * np.abs(account.wanted)
    row, column = np.nonzero(short_of)
    reason = np.where(tape.tradable[row, column], "cash", "no price")
    return pl.DataFrame(
        {
            "date": tape.dates[row],
            "ticker": np.array(tape.tickers, dtype=object)[column].tolist(),
            "reason": reason,
            "wanted": account.wanted[row, column],
            "filled": account.traded[row, column],
        },
        schema_overrides={"ticker": pl.String, "reason": pl.String},
    )


def name_profit(account: Account, tape: Tape) -> Floats:
    """Money that each name earned in each row, costs included: (T+1, N); its sum is the change of equity."""
    overnight = np.zeros_like(account.held)
    overnight[1:] = account.before[1:] - account.held[:-1]
    intraday = account.held - account.before - account.traded
    return overnight + intraday - account.slippage - account.commission


def round_trips(account: Account, tape: Tape) -> pl.DataFrame:
    """One line a round trip.

    Columns: ticker, side (long or short), entry_date, exit_date (null while open), entry_price and exit_price
    (adjusted, as quoted), sessions held, fills, max_value (largest position at a close), gross_profit, costs,
    profit and return_on_value (profit / max_value). A fill that turns a position over closes one trip and opens
    the next; its costs are split by the money of each part.
    """
    position = account.before + account.traded
    side = np.sign(np.where(np.abs(position) > 1e-9 * np.abs(account.traded), position, 0.0))
    lines = []
    for column in np.flatnonzero((account.traded != 0).any(axis=0)).tolist():
        lines += _trips_of(column, side[:, column], account, tape)
    schema = {
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
    table = pl.DataFrame(lines, schema=schema, orient="row")
    return table.sort("entry_date", "ticker", maintain_order=True)


def _trips_of(column: int, side: Floats, account: Account, tape: Tape) -> list[tuple[object, ...]]:
    """Round trips of one ticker from the sign of its position after each row's fill."""
    traded, before, held = account.traded[:, column], account.before[:, column], account.held[:, column]
    cost = account.slippage[:, column] + account.commission[:, column]
    closing = np.where(traded * before < 0, np.minimum(np.abs(before) / np.maximum(np.abs(traded), 1e-300), 1.0), 0.0)
    overnight = np.concatenate([[0.0], before[1:] - held[:-1]])
    intraday = held - before - traded
    starts = np.flatnonzero((side != 0) & (side != np.concatenate([[0.0], side[:-1]])))
    trips: list[tuple[object, ...]] = []
    for start in starts.tolist():
        changed = np.flatnonzero(side[start:] != side[start])
        end = start + int(changed[0]) if len(changed) else None
        last = len(side) - 1 if end is None else end
        inside = slice(start, last if end is not None else last + 1)
        gross = float(overnight[start + 1 : last + 1].sum() + intraday[inside].sum())
        opened_here = 1.0 - closing[start] if before[start] != 0 else 1.0
        paid = float(cost[start] * opened_here + cost[start + 1 : last + (end is None)].sum())
        if end is not None:
            paid += float(cost[end] * (closing[end] if side[end] != 0 else 1.0))
        largest = float(np.abs(held[inside]).max())
        trips.append(
            (
                tape.tickers[column],
                "long" if side[start] > 0 else "short",
                tape.dates[start].item(),
                None if end is None else tape.dates[end].item(),
                float(tape.fill[start, column]),
                None if end is None else float(tape.fill[end, column]),
                last - start,
                int((traded[start : last + 1] != 0).sum()),
                largest,
                gross,
                paid,
                gross - paid,
                (gross - paid) / largest if largest > 0 else None,
            )
        )
    return trips
