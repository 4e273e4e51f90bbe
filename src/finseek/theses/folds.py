"""Walk-forward and combinatorial purged folds over sessions.

H          label horizon; the label of t lives on [t+1, t+1+H]
block      consecutive test sessions [a, b]; what it is judged by lives on [a, b+1+H]
purge      drop t from training if [t+1, t+1+H] meets a block or the labels of one
gap        walk-forward: so many sessions more before the block
embargo    combinatorial: so many sessions more after each block (Lopez de Prado 2018, chapters 7 and 12)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from finseek.core.errors import InputError
from finseek.core.sessions import Sessions
from finseek.theses.options import FoldOptions
from finseek.theses.split import T, uids_hash

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Fold(Generic[T]):
    """One training and test set.

    Attributes:
        train: theses to learn from, in the order of the input.
        test: theses to judge by.
        dropped: theses in neither, by reason: purged, gap, embargoed, outside, not_a_session.
        certificate: JSON-able: the test blocks, counts and hashes of the uids.
    """

    train: list[T]
    test: list[T]
    dropped: dict[str, list[T]]
    certificate: dict[str, Any]


def make_folds(theses: Iterable[T], sessions: Sessions, options: FoldOptions) -> list[Fold[T]]:
    """Folds over the sessions from the first to the last as-of date.

    ``expanding`` and ``rolling``: after ``min_train_sessions`` the rest is cut into ``n_folds`` consecutive test
    blocks; training is everything before a block, or the last ``min_train_sessions`` before it. ``combinatorial``:
    all sessions are cut into ``n_folds`` groups, each choice of ``n_test_folds`` of them is one test set, and
    training is the rest.

    Raises:
        InputError: too few sessions, or a fold without training or test theses.
    """
    everything = list(theses)
    place = sessions.index([thesis.as_of_date for thesis in everything])
    inside = place[place >= 0]
    if not inside.size:
        raise InputError("no thesis lies on a session: folds cannot be made; check the dates against the prices")
    span = np.arange(inside.min(), inside.max() + 1)
    folds = []
    for number, (blocks, allowed) in enumerate(_plans(span, options), 1):
        names = _assign(place, blocks, allowed, options)
        by_name: dict[str, list[T]] = {"train": [], "test": []}
        for thesis, name in zip(everything, names.tolist(), strict=True):
            by_name.setdefault(name, []).append(thesis)
        train, test = by_name.pop("train"), by_name.pop("test")
        if not train or not test:
            empty = "training" if not train else "test"
            raise InputError(
                f"fold {number} of {options.scheme} folds has no {empty} thesis: use fewer folds.n_folds "
                f"({options.n_folds}) or a shorter label_horizon, gap or embargo"
            )
        certificate = {
            "fold": number,
            "test_blocks": [[str(sessions.dates[block[0]]), str(sessions.dates[block[-1]])] for block in blocks],
            "found": len(everything),
            "kept": {"train": len(train), "test": len(test)},
            "dropped": {reason: len(lost) for reason, lost in sorted(by_name.items())},
            "train_uids_sha256": uids_hash(thesis.uid for thesis in train),
            "test_uids_sha256": uids_hash(thesis.uid for thesis in test),
        }
        folds.append(Fold(train, test, by_name, certificate))
    return folds


def _plans(span: Places, options: FoldOptions) -> Iterator[tuple[list[Places], Places]]:
    """The test blocks of each fold and the sessions that its training may come from."""
    walks = options.scheme != "combinatorial"
    tested = span[options.min_train_sessions :] if walks else span
    if len(tested) < options.n_folds:
        raise InputError(
            f"{len(span)} sessions are too few for folds.n_folds {options.n_folds}"
            + (f" after folds.min_train_sessions {options.min_train_sessions}" if walks else "")
        )
    groups = np.array_split(tested, options.n_folds)
    if not walks:
        for chosen in combinations(groups, options.n_test_folds):
            yield list(chosen), span
        return
    for block in groups:
        before = span[span < block[0]]
        yield [block], before[-options.min_train_sessions :] if options.scheme == "rolling" else before


def _assign(place: Places, blocks: list[Places], allowed: Places, options: FoldOptions) -> NDArray[np.str_]:
    """The name of the set that each thesis is in, or the reason why it is in none; shape (R,)."""
    reach = 1 + options.label_horizon
    names = np.full(place.shape, "outside", dtype="U13")
    names[np.isin(place, allowed)] = "train"
    for block in blocks:
        first, last = block[0], block[-1]
        candidates = names == "train"
        before = (place < first) & (place + reach >= first)
        after = (place > last) & (place + 1 <= last + reach)
        purged = candidates & (before | after) if options.purge else np.zeros_like(candidates)
        behind = last + (options.label_horizon if options.purge else 0)
        embargoed = candidates & ~purged & (place > last) & (place <= behind + options.embargo)
        ahead = first - (reach if options.purge else 0)
        in_gap = candidates & ~purged & (place < first) & (place >= ahead - options.gap)
        names[purged] = "purged"
        if options.scheme == "combinatorial":
            names[embargoed] = "embargoed"
        else:
            names[in_gap] = "gap"
    for block in blocks:
        names[np.isin(place, block)] = "test"
    names[place < 0] = "not_a_session"
    return names
