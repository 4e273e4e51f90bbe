"""Corporate actions: dividends that are paid in cash, and splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finseek.core.errors import InputError
from finseek.core.sessions import as_days
from finseek.core.tables import read_table, to_date
from finseek.market import Prices

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CorporateActions:
    """Actions on the grid of a price table of S sessions and N tickers.

    Attributes:
        dividend: (S, N) money a raw share of that session is paid; the holder at the close before gets it. 0 is none.
        split_factor: (S, N) what a raw price is multiplied with to be comparable over splits: 1 after the last one.
    """

    dividend: Floats
    split_factor: Floats


def read_actions(path: Path, prices: Prices) -> CorporateActions:
    """Read ``ticker, date, dividend, split`` (CSV or Parquet); tickers that the table lacks are passed over.

    ``dividend`` is money per share as traded on the ex-date ``date``; ``split`` is new shares for one old share from
    that date on. An empty cell is none. An action on a day without a session belongs to the next session.

    Raises:
        InputError: a missing file or column, a value that is not a number, a negative dividend, a split not above 0,
            two lines for one ticker and date.
    """
    table = read_table(path, "actions file")
    wanted = ("ticker", "date", "dividend", "split")
    if missing := [name for name in wanted if name not in table.columns]:
        raise InputError(f"actions file {path} lacks {', '.join(missing)}: it needs {', '.join(wanted)}")
    dividend, split = np.zeros(prices.close.shape), np.ones(prices.close.shape)
    dates = prices.sessions.dates
    columns = {ticker: column for column, ticker in enumerate(prices.tickers)}
    seen: set[tuple[str, object]] = set()
    for number, row in enumerate(table.select(wanted).iter_rows(named=True), start=2):
        try:
            day = to_date(row["date"], "date")
            paid, ratio = (float(row[name]) if row[name] not in (None, "") else blank for name, blank in _BLANKS)
        except ValueError as problem:
            raise InputError(f"{path}, line {number}: {problem}") from None
        if (row["ticker"], day) in seen:
            raise InputError(f"{path}, line {number}: {row['ticker']} has a second line for {day}: join them")
        seen.add((row["ticker"], day))
        if not (0 <= paid < np.inf and 0 < ratio < np.inf):
            raise InputError(
                f"{path}, line {number}: dividend {paid:g}, split {ratio:g}: want dividend >= 0, split > 0"
            )
        at = int(np.searchsorted(dates, as_days([day])[0]))
        if row["ticker"] in columns and 0 < at < len(dates):
            dividend[at, columns[row["ticker"]]] += paid
            split[at, columns[row["ticker"]]] *= ratio
    later = np.cumprod(split[::-1], axis=0)[::-1]
    factor = np.ones(split.shape)
    factor[:-1] = 1.0 / later[1:]
    return CorporateActions(dividend, factor)


_BLANKS = (("dividend", 0.0), ("split", 1.0))
