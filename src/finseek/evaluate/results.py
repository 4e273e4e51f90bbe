"""eval_results.csv, written and read: the backtest takes it unchanged."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finseek.core.actions import ACTIONS, Action, parse_action
from finseek.core.artifacts import atomic_file
from finseek.core.errors import InputError
from finseek.core.tables import read_table
from finseek.evaluate.parse import parse_answer
from finseek.evaluate.records import SCORED, Prediction

if TYPE_CHECKING:
    from finseek.market import Prices

P_COLUMNS = {action: f"p_{action.lower()}" for action in ACTIONS}
REQUIRED = ("ticker", "as_of_date", "gt_action", "pred_action")
_DAY = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]00:00:00(?:\.0+)?)?")
COLUMNS = (*REQUIRED, "status", *P_COLUMNS.values(), "confidence", "completion", "realized_return")


def write_results(path: Path, predictions: Sequence[Prediction], prices: Prices | None = None) -> None:
    """Write eval_results.csv, sorted by date and ticker; ``realized_return`` is the forward return at horizon 1."""
    import polars as pl

    from finseek.evaluate.financial import row_returns

    rows = sorted(predictions, key=lambda row: (row.as_of_date, row.ticker))
    realized: list[float | None] = [None] * len(rows)
    if prices is not None and rows:
        realized = [float(r) if math.isfinite(r) else None for r in row_returns(rows, prices, (1,)).rows[1]]
    table: dict[str, list[Any]] = {
        "ticker": [row.ticker for row in rows],
        "as_of_date": [row.as_of_date.isoformat() for row in rows],
        "gt_action": [row.gt_action.value for row in rows],
        "pred_action": [row.pred_action.value if row.pred_action else None for row in rows],
        "status": [row.status for row in rows],
        **{column: [row.p[action] if row.p else None for row in rows] for action, column in P_COLUMNS.items()},
        "confidence": [row.confidence for row in rows],
        "completion": [row.completion for row in rows],
        "realized_return": realized,
    }
    numbers = (*P_COLUMNS.values(), "confidence", "realized_return")
    schema = {name: pl.Float64 if name in numbers else pl.String for name in COLUMNS}
    with atomic_file(path) as partial:
        pl.DataFrame(table, schema=schema).write_csv(partial)


def read_predictions(path: Path) -> list[Prediction]:
    """Read predictions from CSV or Parquet: ticker, as_of_date, gt_action, pred_action, and the rest where present.

    Without a column pred_action the answers are parsed from the column completion; other columns are not looked at.

    Raises:
        InputError: a missing file or column, or a value that breaks a rule, with its row (from 1).
    """
    import polars as pl

    frame = read_table(path, "predictions file").with_columns(pl.all().cast(pl.String))
    absent = [name for name in REQUIRED if name not in frame.columns]
    if absent == ["pred_action"] and "completion" in frame.columns:
        absent = []
    if absent:
        raise InputError(
            f"predictions {path} lack the columns {', '.join(absent)}: they hold {', '.join(REQUIRED)}, "
            "or a completion to parse in place of pred_action"
        )
    seen: dict[tuple[str, date], int] = {}
    predictions = []
    for number, row in enumerate(frame.iter_rows(named=True), 1):
        try:
            found = _prediction(row)
        except InputError as error:
            raise InputError(f"predictions {path} row {number}: {error}") from None
        first = seen.setdefault((found.ticker, found.as_of_date), number)
        if first != number:
            raise InputError(
                f"predictions {path} row {number}: {found.ticker} as of {found.as_of_date} is on row {first} already: "
                "keep one of them"
            )
        predictions.append(found)
    if not predictions:
        raise InputError(f"predictions {path} hold no row: there is nothing to score")
    return predictions


def _prediction(row: dict[str, Any]) -> Prediction:
    ticker, day, completion = (row.get(name) or "" for name in ("ticker", "as_of_date", "completion"))
    if not ticker.strip() or not day or not row["gt_action"]:
        raise InputError("ticker, as_of_date and gt_action must not be empty")
    if not _DAY.fullmatch(day):
        raise InputError(f"as_of_date {day!r} is not a date of the form 2025-01-31")
    try:
        as_of_date = date.fromisoformat(day[:10])
    except ValueError as error:
        raise InputError(f"as_of_date {day!r} is no day ({error})") from None
    repairs: tuple[str, ...] = ()
    if "pred_action" in row:
        answer = parse_action(row["pred_action"]) if row["pred_action"] else None
        status = row.get("status") or (SCORED if answer else "no_action")
    else:
        parsed = parse_answer(completion)
        answer, status, repairs = parsed.action, parsed.status, parsed.repairs
    if (answer is None) == (status == SCORED):
        raise InputError(f"status {status!r} does not fit pred_action {row.get('pred_action')!r}: correct one of them")
    truth, p = parse_action(row["gt_action"]), _probabilities(row)
    sure = _number(row.get("confidence"), "confidence")
    if sure is not None and not (answer and 0 <= sure <= 1):
        raise InputError(f"confidence {sure} is not the probability of an action: give a number from 0 to 1, or none")
    return Prediction(ticker.strip(), as_of_date, truth, answer, status, p, completion, repairs, sure)


def _number(value: str | None, name: str) -> float | None:
    if value in (None, ""):
        return None
    try:
        return float(value)
    except ValueError as error:
        raise InputError(f"{name} is no number ({error})") from None


def _probabilities(row: dict[str, Any]) -> dict[Action, float] | None:
    given = {action: _number(row.get(column), column) for action, column in P_COLUMNS.items()}
    p = {action: value for action, value in given.items() if value is not None}
    if not p:
        return None
    # written so that NaN, which is neither below nor above anything, is refused too
    if not (len(p) == len(ACTIONS) and min(p.values()) >= 0 and abs(sum(p.values()) - 1) <= 1e-6):
        raise InputError(f"the five probabilities {list(p.values())} must be given together, at least 0, with sum 1")
    return p
