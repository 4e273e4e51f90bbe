"""Classical models on the same snapshot that the prompt shows: what a language model has to beat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finseek.core.actions import ACTIONS, Action
from finseek.core.errors import InputError, MissingPart
from finseek.evaluate.baselines import majority, persistence, random_shares, sign_rule
from finseek.evaluate.records import Labelled, Prediction

if TYPE_CHECKING:
    from finseek.market import Snapshots

Floats = NDArray[np.float64]
Key = tuple[str, date]


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
    """
    prices = snapshots.prices
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
    model.fit(train, np.array([ACTIONS.index(label) for label in labels]))
    return [ACTIONS[int(code)] for code in model.predict(test)]


NAMES = ("majority", "persistence", "random", "momentum", "reversal", "logistic", "gradient_boosting", "teacher")


def standard_baselines(
    rows: Sequence[Prediction],
    training: Sequence[Labelled],
    history: Sequence[Labelled],
    snapshots: Snapshots | None,
    *,
    names: Sequence[str] = NAMES,
    ticker: bool = True,
    last_actions: int = 0,
    seed: int = 0,
) -> tuple[dict[str, list[Action | None]], dict[str, str]]:
    """All baselines of the labels, on the same rows and with the same information as the prompt.

    Args:
        rows: the predictions to compare with; their own answers are not looked at.
        training: labels of the training split.
        history: all labels; only what is dated before a row is used for it.
        snapshots: as the prompt shows them; None leaves out what needs them.
        names: which baselines, of ``NAMES``.
        ticker: whether the prompt shows the ticker.
        last_actions: how many last actions the prompt shows.
        seed: of the random baseline and the trees.

    Returns:
        answers by name, in the order of the rows, and the reason for each baseline that could not be had.
    """
    keys = [(row.ticker, row.as_of_date) for row in rows]
    answers: dict[str, list[Action | None]] = {}
    absent: dict[str, str] = {}

    def past_return(name: str) -> Floats:
        assert snapshots is not None
        if name not in snapshots.features:
            raise InputError(f"the snapshot has no feature {name}: add it to prompt.snapshot.features")
        session = snapshots.prices.sessions.index([day for _, day in keys])
        column = np.array([snapshots.prices.column(ticker) for ticker, _ in keys])
        return np.where(session >= 0, snapshots.features[name][session, column], np.nan)

    def fitted(kind: str) -> list[Action | None]:
        assert snapshots is not None
        shown: dict[str, Any] = {"ticker": ticker, "last_actions": last_actions, "history": history}
        train = feature_matrix([(row.ticker, row.as_of_date) for row in training], snapshots, **shown)
        return learned(kind, train, [row.action for row in training], feature_matrix(keys, snapshots, **shown), seed)

    makers: dict[str, Callable[[], list[Action | None]]] = {
        "majority": lambda: majority(rows, training),
        "persistence": lambda: persistence(rows, history),
        "random": lambda: random_shares(rows, training, seed),
        "momentum": lambda: sign_rule(past_return("ret20"), 1),
        "reversal": lambda: sign_rule(past_return("ret5"), -1),
        "logistic": lambda: fitted("logistic"),
        "gradient_boosting": lambda: fitted("gradient_boosting"),
        "teacher": lambda: [row.gt_action for row in rows],
    }
    for name in names:
        if name not in makers:
            raise InputError(f"baseline {name!r} is none of {', '.join(makers)}")
        if snapshots is None and name in ("momentum", "reversal", "logistic", "gradient_boosting"):
            absent[name] = "there is no market snapshot"
            continue
        if not training and name in ("majority", "random", "logistic", "gradient_boosting"):
            absent[name] = "there are no labels to learn from"
            continue
        try:
            answers[name] = makers[name]()
        except InputError as error:
            absent[name] = str(error)
    return answers, absent
