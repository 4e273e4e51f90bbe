"""Classical models on the same snapshot that the prompt shows: what a language model has to beat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finseek.core.actions import ACTIONS, Action, Labelled
from finseek.core.errors import InputError, MissingPart

if TYPE_CHECKING:
    from finseek.market import Snapshots

Floats = NDArray[np.float64]
Key = tuple[str, date]
LARGEST = 2**26  # numbers in a matrix of features, 512 MiB; a fit holds a few of its size, and takes minutes


def feature_matrix(
    keys: Sequence[Key],
    snapshots: Snapshots,
    *,
    ticker: bool = True,
    last_actions: int = 0,
    history: Iterable[Labelled] = (),
) -> Floats:
    """What the prompt shows of each row, as numbers: (n, F), NaN where a feature is unknown.

    Args:
        keys: ticker and as-of date of each row.
        snapshots: the market; its scaled features are the columns.
        ticker: one column for each ticker of the price table, 1 where it is the row's.
        last_actions: ranks of the ticker's last k actions before the row's date, the latest first.
        history: the labels they come from.

    Raises:
        InputError: a row is no session of the table, or a column for each ticker makes more than ``LARGEST`` numbers.
    """
    prices = snapshots.prices
    if ticker and len(keys) * len(prices.tickers) > LARGEST:
        raise InputError(
            f"{len(keys):,} rows with a column for each of {len(prices.tickers):,} tickers take"
            f" {8 * len(keys) * len(prices.tickers) / 2**30:.1f} GiB: set prompt.ticker to false, which takes it"
            " from the model, too"
        )
    session = prices.sessions.index([day for _, day in keys])
    column = np.array([prices.column(name) for name, _ in keys])
    if (session < 0).any():
        name, day = keys[int(np.flatnonzero(session < 0)[0])]
        raise InputError(f"{day} of {name} is no session of the price table: baselines need the snapshot as of it")
    parts = [np.stack([table[session, column] for table in snapshots.scaled.values()], axis=1)]
    if ticker:
        parts.append(np.eye(len(prices.tickers))[column])
    if last_actions:
        parts.append(_last_ranks(keys, last_actions, history))
    return np.concatenate(parts, axis=1)


def _last_ranks(keys: Sequence[Key], count: int, history: Iterable[Labelled]) -> Floats:
    known: dict[str, list[tuple[date, Action]]] = {}
    for label in sorted(history, key=lambda label: label.as_of_date):
        known.setdefault(label.ticker, []).append((label.as_of_date, label.action))
    ranks = np.full((len(keys), count), np.nan)
    for i, (name, day) in enumerate(keys):
        before = [action.rank for seen, action in known.get(name, ()) if seen < day][-count:]
        ranks[i, : len(before)] = before[::-1]
    return ranks


def learned(kind: str, train: Floats, labels: Sequence[Action], test: Floats, seed: int = 0) -> list[Action | None]:
    """Predictions of a scikit-learn model with its defaults, fitted on the training split alone.

    Args:
        kind: ``logistic`` (standardised, unknown features at their mean) or ``gradient_boosting`` (histogram trees).
        train: (n, F) features of the training rows.
        labels: their actions.
        test: (m, F).
        seed: of the trees.

    Raises:
        MissingPart: scikit-learn is not installed.
        InputError: fewer than two classes to learn.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingPart("scikit-learn", "stats", f"the baseline {kind}") from None
    if len(set(labels)) < 2:
        raise InputError(f"the baseline {kind} needs two actions in the training split to tell apart")
    models: dict[str, Callable[[], Any]] = {
        "logistic": lambda: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=1000)),
        "gradient_boosting": lambda: HistGradientBoostingClassifier(random_state=seed, early_stopping=False),
    }
    train, test = (np.where(np.isfinite(part), part, np.nan) for part in (train, test))
    known = np.isfinite(train).any(axis=0)  # a feature with a longer history than the training split teaches nothing
    train, test = train[:, known], test[:, known]
    model = models[kind]()
    # Threads that wait for each other in each small step stand still on a busy machine: 76 CPU seconds instead of 2.5.
    with threadpool_limits(limits=1):
        model.fit(train, np.array([ACTIONS.index(label) for label in labels]))
        return [ACTIONS[int(code)] for code in model.predict(test)]
