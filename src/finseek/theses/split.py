"""Time splits: what a model may learn from ends before what it is judged by begins.

t          as-of session of a thesis
label_end  session t+1+H, at whose open the label of t is known
purge      drop t from an earlier split if label_end >= first session of a later split
embargo    drop the e sessions before those besides
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import sha256
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from finseek.core.actions import ACTIONS, Action
from finseek.core.errors import ConfigError, InputError
from finseek.core.sessions import Sessions
from finseek.theses.near_duplicates import matches
from finseek.theses.options import SplitOptions

SPLITS = ("train", "validation", "test")
EPOCH = date(1970, 1, 1).toordinal()


class Dated(Protocol):
    """What a split needs to know of a thesis."""

    @property
    def uid(self) -> str:
        """Identity of (ticker, as-of date)."""

    @property
    def ticker(self) -> str:
        """Upper case."""

    @property
    def as_of_date(self) -> date:
        """The session after whose close the thesis was known."""

    @property
    def action(self) -> Action | None:
        """What is to be learned; None where it is not known."""


T = TypeVar("T", bound=Dated)


@dataclass(frozen=True)
class Split(Generic[T]):
    """Theses by split, what was dropped by reason, and the proof that labels do not overlap.

    Attributes:
        train: theses to learn from.
        validation: theses to choose by; empty only where ``validation_days`` is 0.
        test: theses to judge by.
        dropped: theses in no split, by reason: not_a_session, between_splits, purged, embargoed, holdout_ticker,
            near_duplicate, no_label.
        certificate: JSON-able: boundaries, counts, first and last dates, label ends, hashes of the uids.
    """

    train: list[T]
    validation: list[T]
    test: list[T]
    dropped: dict[str, list[T]]
    certificate: dict[str, Any]


def split_by_time(theses: Iterable[T], sessions: Sessions | None, options: SplitOptions) -> Split[T]:
    """Split theses by as-of date, purge by label end, embargo, hold tickers out; the order of the input is kept.

    Training is what lies on or before train_end − validation_days, validation (train_end − validation_days,
    train_end], test from test_start on, all in calendar days. A label that ends beyond the last session counts as
    ending after every session.

    Args:
        theses: anything with uid, ticker, as_of_date and action.
        sessions: the trading days; None only with ``purge`` off and ``embargo`` 0, and then dates are not checked.
        options: the cuts.

    Raises:
        ConfigError: purge or embargo without sessions.
        InputError: a split is empty, or was emptied.
    """
    if sessions is None and (options.purge or options.embargo):
        raise ConfigError(
            "split.purge and split.embargo count sessions and there are no prices to take sessions from: "
            "set prices.source, or split.purge to false and split.embargo to 0"
        )
    everything = list(theses)
    ordinals = np.fromiter((thesis.as_of_date.toordinal() for thesis in everything), dtype=np.int64)
    days = (ordinals - EPOCH).view("datetime64[D]")
    reasons = _assign(everything, days, sessions, options)
    validate = options.validation_days > 0
    _refuse_empty(reasons, "before purging", options, validate)
    purge_and_embargo(reasons, days, sessions, options)
    if options.near_duplicate_threshold is not None:
        purge_near_duplicates(reasons, everything, options.near_duplicate_threshold)
    _refuse_empty(reasons, "after purging", options, validate)
    return assemble(everything, reasons, sessions, options)


def _assign(
    theses: Sequence[Dated], days: NDArray[np.datetime64], sessions: Sessions | None, options: SplitOptions
) -> NDArray[np.str_]:
    """The split of each thesis by the calendar, or the reason why it is in none; shape (R,)."""
    train_end = np.datetime64(options.train_end, "D")
    train_last = np.datetime64(options.train_end - timedelta(days=options.validation_days), "D")
    names = np.full(len(theses), "between_splits", dtype="U16")
    names[days <= train_end] = "validation"
    names[days <= train_last] = "train"
    names[days >= np.datetime64(options.test_start, "D")] = "test"
    if options.holdout_tickers:
        held = {ticker.upper() for ticker in options.holdout_tickers}
        absent = held - {thesis.ticker for thesis in theses}
        if absent:
            raise InputError(f"split.holdout_tickers names {', '.join(sorted(absent))}, of which there is no thesis")
        is_held = np.array([thesis.ticker in held for thesis in theses], dtype=bool)
        names[is_held & np.isin(names, SPLITS[:2])] = "holdout_ticker"
    names[[place for place, thesis in enumerate(theses) if thesis.action is None]] = "no_label"
    if sessions is not None:
        names[sessions.index(days) < 0] = "not_a_session"
    return names


def purge_and_embargo(
    names: NDArray[np.str_], days: NDArray[np.datetime64], sessions: Sessions | None, options: SplitOptions
) -> None:
    """Mark in place what an earlier split must lose to each later one."""
    if sessions is None:
        return
    place = sessions.index(days)
    horizon = 1 + options.label_horizon
    first = {name: place[names == name].min() for name in SPLITS if (names == name).any()}
    for earlier, name in enumerate(SPLITS):
        later = [first[other] for other in SPLITS[earlier + 1 :] if other in first]
        if not later:
            continue
        mine = names == name
        purged = mine & (place + horizon >= min(later)) if options.purge else np.zeros_like(mine)
        reach = (horizon if options.purge else 0) + options.embargo
        embargoed = mine & ~purged & (place + reach >= min(later)) if options.embargo else np.zeros_like(mine)
        names[purged] = "purged"
        names[embargoed] = "embargoed"


def purge_near_duplicates(names: NDArray[np.str_], theses: Sequence[Dated], threshold: float) -> None:
    """Mark in place what an earlier split holds that is nearly a text of a later one.

    Raises:
        ConfigError: the theses came without texts.
    """
    places = np.flatnonzero(np.isin(names, SPLITS)).tolist()
    try:
        texts = [f"{thesis.reasoning}\n{thesis.support}" for thesis in map(theses.__getitem__, places)]  # type: ignore[attr-defined]
    except AttributeError:
        raise ConfigError("split.near_duplicate_threshold compares texts, and these theses have none") from None
    order = [SPLITS.index(names[place]) for place in places]
    for match in matches(texts, threshold, order):
        earlier = min(match.first, match.second, key=lambda alike: order[alike[0]])
        names[[places[place] for place in earlier]] = "near_duplicate"


def assemble(
    theses: Sequence[T], names: NDArray[np.str_], sessions: Sessions | None, options: SplitOptions
) -> Split[T]:
    """Theses under the names that were worked out for them, with their certificate."""
    by_name: dict[str, list[T]] = {name: [] for name in SPLITS}
    for thesis, name in zip(theses, names.tolist(), strict=True):
        by_name.setdefault(name, []).append(thesis)
    splits = {name: by_name.pop(name) for name in SPLITS}
    certificate = certify(splits, by_name, sessions, options)
    return Split(splits["train"], splits["validation"], splits["test"], by_name, certificate)


def certify(
    splits: dict[str, list[T]], dropped: dict[str, list[T]], sessions: Sessions | None, options: SplitOptions
) -> dict[str, Any]:
    """What proves, without the theses, that no label of an earlier split reaches into a later one."""
    described = {name: _describe(theses, sessions, options.label_horizon) for name, theses in splits.items()}
    overlaps = []
    for place, earlier in enumerate(SPLITS):
        for later in SPLITS[place + 1 :]:
            if not splits[earlier] or not splits[later]:
                continue
            label_end, first = described[earlier]["max_label_end"], described[later]["first_as_of_date"]
            overlaps.append({
                "earlier": earlier,
                "later": later,
                "max_label_end": label_end,
                "first_session": first,
                "disjoint": None if sessions is None else label_end is not None and label_end < first,
            })  # fmt: skip
    return {
        "options": options.model_dump(mode="json"),
        "sessions": None
        if sessions is None or not len(sessions)
        else {"count": len(sessions), "first": str(sessions.dates[0]), "last": str(sessions.dates[-1])},
        "found": sum(map(len, splits.values())) + sum(map(len, dropped.values())),
        "kept": {name: len(theses) for name, theses in splits.items()},
        "dropped": {reason: len(theses) for reason, theses in sorted(dropped.items())},
        "splits": described,
        "overlaps": overlaps,
        "labels_disjoint": None if sessions is None else all(pair["disjoint"] for pair in overlaps),
    }


def uids_hash(uids: Iterable[str]) -> str:
    """SHA-256 of the sorted uids, one a line: the same for any order."""
    return sha256("\n".join(sorted(uids)).encode()).hexdigest()


def _describe(theses: Sequence[Dated], sessions: Sessions | None, horizon: int) -> dict[str, Any]:
    days = [thesis.as_of_date for thesis in theses]
    actions = Counter(thesis.action for thesis in theses)
    ends = None if sessions is None or not days else sessions.label_end(days, horizon)
    beyond = 0 if ends is None else int(np.isnat(ends).sum())
    return {
        "count": len(theses),
        "first_as_of_date": min(days).isoformat() if days else None,
        "last_as_of_date": max(days).isoformat() if days else None,
        "sessions": len(set(days)),
        "tickers": len({thesis.ticker for thesis in theses}),
        "actions": {action.value: actions[action] for action in ACTIONS},
        "max_label_end": None if ends is None or beyond else str(ends.max()),
        "label_ends_beyond_last_session": beyond,
        "uids_sha256": uids_hash(thesis.uid for thesis in theses),
    }


def _refuse_empty(names: NDArray[np.str_], when: str, options: SplitOptions, validate: bool) -> None:
    counts = Counter(names.tolist())
    for name in SPLITS:
        if not counts[name] and (validate or name != "validation"):
            others = ", ".join(f"{count} {other}" for other, count in sorted(counts.items()))
            raise InputError(
                f"the {name} split holds no thesis {when} ({others or 'no theses at all'}): move split.train_end "
                f"{options.train_end}, split.test_start {options.test_start} or split.validation_days "
                f"{options.validation_days}"
            )
