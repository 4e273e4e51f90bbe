"""Records that must not be learnable, or less so: what the model still finds in them tells what it learned from.

A placebo changes the theses before samples are built; then the model is trained and scored again. Keys (ticker,
as-of date) stay, so that every placebo has the rows and the market snapshots of the true run; what moves is the
opinion: action, texts, indicators and custom fields together, so that a leak in any of them moves along.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import msgspec
import numpy as np

from finseek.core.actions import Labelled
from finseek.core.errors import InputError
from finseek.evaluate import EvaluateOptions, Prediction, score_predictions
from finseek.stats import mean_of, paired_difference, resample_counts, stationary_bootstrap
from finseek.theses import Thesis

OPINION = ("reasoning", "support", "action", "indicators", "instruction", "input", "output")
SHIFT = 60


def with_opinions(theses: Sequence[Thesis], order: Sequence[int]) -> list[Thesis]:
    """The keys of ``theses`` with the opinions of ``theses[order[i]]``."""
    return [
        msgspec.structs.replace(thesis, **{name: getattr(theses[source], name) for name in OPINION})
        for thesis, source in zip(theses, order, strict=True)
    ]


def shuffled_labels(theses: Sequence[Thesis], seed: int) -> list[Thesis]:
    """Opinions dealt out anew over all keys: nothing in a prompt can know them."""
    return with_opinions(theses, np.random.default_rng(seed).permutation(len(theses)).tolist())


def shifted_dates(theses: Sequence[Thesis], seed: int) -> list[Thesis]:
    """Each ticker's opinions moved ``SHIFT`` theses later, the last ones to its beginning."""
    order = list(range(len(theses)))
    by_ticker: dict[str, list[int]] = {}
    for i in sorted(order, key=lambda i: theses[i].as_of_date):
        by_ticker.setdefault(theses[i].ticker, []).append(i)
    for places in by_ticker.values():
        for k, i in enumerate(places):
            order[i] = places[k - SHIFT % len(places)]
    return with_opinions(theses, order)


def swapped_tickers(theses: Sequence[Thesis], seed: int) -> list[Thesis]:
    """Opinions handed on to another ticker of the same date, in a circle that is the same on all dates."""
    tickers = sorted({thesis.ticker for thesis in theses})
    place = dict(zip(tickers, np.random.default_rng(seed).permutation(len(tickers)), strict=True))
    by_date: dict[date, list[int]] = {}
    for i, thesis in enumerate(theses):
        by_date.setdefault(thesis.as_of_date, []).append(i)
    order = list(range(len(theses)))
    for rows in by_date.values():
        circle = sorted(rows, key=lambda i: place[theses[i].ticker])
        for k, i in enumerate(circle):
            order[i] = circle[k - 1]
    return with_opinions(theses, order)


_DATES = re.compile(r"\b(?:19|20)\d{2}(?:-\d{2}-\d{2})?\b")


def anonymised(theses: Sequence[Thesis], seed: int) -> list[Thesis]:
    """Tickers and dates struck out of every text of the records; the prompt hides them by its own options."""
    names = re.compile("|".join(rf"\b{re.escape(t)}\b" for t in sorted({thesis.ticker for thesis in theses})))

    def blank(text: str | None) -> str | None:
        return None if text is None else _DATES.sub("[date]", names.sub("[stock]", text))

    texts = ("reasoning", "support", "instruction", "input", "output")
    return [
        msgspec.structs.replace(
            thesis,
            **{name: blank(getattr(thesis, name)) for name in texts},
            indicators={name: blank(value) or "" for name, value in thesis.indicators.items()},
        )
        for thesis in theses
    ]


@dataclass(frozen=True)
class Placebo:
    """One way to take the truth out of the records.

    Attributes:
        change: from theses and a seed to as many theses with the same keys.
        says: what a score that stays high would mean.
        must_fail: a score above the majority baseline is a leak.
        prompt: options of the prompt that go with it.
    """

    change: Callable[[Sequence[Thesis], int], list[Thesis]]
    says: str
    must_fail: bool = False
    prompt: dict[str, Any] = field(default_factory=dict)


PLACEBOS: dict[str, Placebo] = {
    "shuffled_labels": Placebo(shuffled_labels, "the prompt holds the label or something made from it", must_fail=True),
    "shifted_dates": Placebo(shifted_dates, "the score rests on slow habits of a ticker, not on its market as of t"),
    "swapped_tickers": Placebo(swapped_tickers, "the score rests on what all tickers share on a day"),
    "anonymised": Placebo(
        anonymised,
        "the score rests on the numbers, not on names and dates",
        prompt={"ticker": False, "as_of_date": False},
    ),
}


def compare_placebo(
    name: str,
    real: Sequence[Prediction],
    placebo: Sequence[Prediction],
    training: Sequence[Labelled],
    options: EvaluateOptions | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What a placebo does to the score.

    Args:
        name: of ``PLACEBOS``.
        real: predictions of the true run.
        placebo: predictions of the model that was trained on the placebo, for the same keys, scored against its labels.
        training: training labels of the placebo, for its majority baseline.
        options: bootstrap.
        seed: of the bootstrap.

    Returns:
        accuracies, the change (placebo - real) and the advantage over the placebo's own majority baseline with their
        intervals, and whether that is a leak.

    Raises:
        InputError: an unknown placebo, or other rows than those of the true run.
    """
    if name not in PLACEBOS:
        raise InputError(f"placebo {name!r} is none of {', '.join(PLACEBOS)}")
    options = options or EvaluateOptions()
    keys = [sorted((row.as_of_date, row.ticker) for row in rows) for rows in (real, placebo)]
    if keys[0] != keys[1]:
        raise InputError(
            f"placebo {name} was scored on {len(placebo)} rows that are not the {len(real)} of the true run"
        )
    days = np.unique(np.array([day for day, _ in keys[0]], dtype="datetime64[D]"))
    rng = np.random.default_rng(seed)
    counts = resample_counts(stationary_bootstrap(len(days), options.mean_block, options.bootstrap_resamples, rng))
    change = paired_difference(_right(placebo, days), _right(real, days), mean_of, counts, options.level)
    scored = score_predictions(placebo, None, options, training=training, seed=seed)
    chance = scored.baselines["majority"]
    above = bool(chance["difference"]["accuracy"]["better"])
    return {
        "placebo": name,
        "says": PLACEBOS[name].says,
        "rows": len(placebo),
        "accuracy_real": float(mean_of(_right(real, days).sum(0))),
        "accuracy_placebo": scored.classification["all"]["accuracy"]["value"],
        "accuracy_majority": chance["accuracy"]["value"],
        "change": change.to_json(),
        "above_majority": chance["difference"]["accuracy"],
        "leak": PLACEBOS[name].must_fail and above,
    }


def _right(rows: Sequence[Prediction], days: Any) -> Any:
    """(S, 2) right answers and rows of each session."""
    session = np.searchsorted(days, np.array([row.as_of_date for row in rows], dtype="datetime64[D]"))
    right = np.array([row.pred_action == row.gt_action for row in rows], dtype=float)
    return np.stack([np.bincount(session, right, len(days)), np.bincount(session, minlength=len(days))], axis=1).astype(
        float
    )
