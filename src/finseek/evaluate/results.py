"""eval_results.csv, written and read: the backtest takes it unchanged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finseek.core.actions import ACTIONS, Action, parse_action
from finseek.core.artifacts import atomic_file
from finseek.core.errors import InputError
from finseek.evaluate.records import SCORED, Prediction

if TYPE_CHECKING:
    import polars as pl

    from finseek.market import Prices

P_COLUMNS = {action: f"p_{action.lower()}" for action in ACTIONS}
REQUIRED = ("ticker", "as_of_date", "gt_action", "pred_action")
COLUMNS = (*REQUIRED, "status", *P_COLUMNS.values(), "completion", "realized_return")


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
        "completion": [row.completion for row in rows],
        "realized_return": realized,
    }
    numbers = (*P_COLUMNS.values(), "realized_return")
    schema = {name: pl.Float64 if name in numbers else pl.String for name in COLUMNS}
    with atomic_file(path) as partial:
        pl.DataFrame(table, schema=schema).write_csv(partial)


def read_predictions(path: Path) -> list[Prediction]:
    """Read predictions from CSV or Parquet: ticker, as_of_date, gt_action, pred_action, and the rest where present.

    Raises:
        InputError: a missing file or column, or a value that breaks a rule, with its row (from 1).
    """
    frame = _read(path)
    absent = [name for name in REQUIRED if name not in frame.columns]
    if absent:
        raise InputError(f"{path} lacks the columns {', '.join(absent)}: predictions hold {', '.join(REQUIRED)}")
    predictions = []
    for number, row in enumerate(frame.iter_rows(named=True), 1):
        try:
            predictions.append(_prediction(row))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} row {number}: {error}") from None
    return predictions


def _read(path: Path) -> pl.DataFrame:
    import polars as pl

    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path).with_columns(pl.all().cast(pl.String))
        return pl.read_csv(path, infer_schema=False)
    except FileNotFoundError:
        raise InputError(f"predictions {path} do not exist: give a CSV or Parquet file") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"predictions {path} cannot be read as a table ({error})") from None


def _prediction(row: dict[str, Any]) -> Prediction:
    if not row["ticker"] or not row["as_of_date"] or not row["gt_action"]:
        raise InputError("ticker, as_of_date and gt_action must not be empty")
    answer = parse_action(row["pred_action"]) if row["pred_action"] else None
    status = row.get("status") or (SCORED if answer else "no_action")
    if (answer is None) == (status == SCORED):
        raise InputError(f"status {status!r} does not fit pred_action {row['pred_action']!r}")
    return Prediction(
        ticker=row["ticker"],
        as_of_date=date.fromisoformat(row["as_of_date"]),
        gt_action=parse_action(row["gt_action"]),
        pred_action=answer,
        status=status,
        p=_probabilities(row),
        completion=row.get("completion") or "",
    )


def _probabilities(row: dict[str, Any]) -> dict[Action, float] | None:
    given = {action: row.get(column) for action, column in P_COLUMNS.items()}
    if all(value in (None, "") for value in given.values()):
        return None
    p = {action: float(value) for action, value in given.items() if value not in (None, "")}
    if len(p) < len(ACTIONS) or min(p.values()) < 0 or abs(sum(p.values()) - 1) > 1e-6:
        raise InputError(f"the five probabilities {list(p.values())} must be given together and sum to one")
    return p
