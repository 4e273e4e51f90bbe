"""Near-duplicates by MinHash over word shingles, every candidate verified exactly.

s          Jaccard similarity |A & B| / |A | B| of two sets of shingles
K = b·r    hashes of a signature in b bands of r rows; P(candidate) = 1 − (1 − s^r)^b  (Broder 1997; Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, chapter 3)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finseek.core.progress import Progress, silent

SHINGLE = 3
HASHES = 256
MISS = 1e-5
MARGIN = 0.2  # more than six standard errors of an estimate from 256 hashes, sqrt(s(1 - s)/256) <= 0.031

Hashes = NDArray[np.uint64]
_WORD = re.compile(r"\w+")


class Pair(NamedTuple):
    """Two texts, by place, first < second, and their exact Jaccard similarity."""

    first: int
    second: int
    jaccard: float


class Match(NamedTuple):
    """Two sets of texts, by place, each text of one similar to each of the other; within a set all are the same."""

    first: list[int]
    second: list[int]
    jaccard: float


def near_duplicates(
    texts: Sequence[str],
    threshold: float,
    groups: Sequence[object] | None = None,
    *,
    seed: int = 1,
    progress: Progress = silent,
) -> list[Pair]:
    """All pairs of texts whose Jaccard similarity of word 3-shingles reaches the threshold, sorted.

    A pair at the threshold is missed with probability of about 1e-5, a closer pair more rarely; no other pair is
    returned, because each candidate is verified on its shingles.

    Args:
        texts: any number; a text without words is similar to none.
        threshold: in (0, 1].
        groups: of each text; then only pairs of different groups are returned.
        seed: of the hash functions.
        progress: told now and then.
    """
    found = (
        Pair(min(a, b), max(a, b), match.jaccard)
        for match in matches(texts, threshold, groups, seed=seed, progress=progress)
        for a in match.first
        for b in match.second
        if a < b or match.first is not match.second
    )
    return sorted(pair for pair in found if pair.first != pair.second)


def matches(
    texts: Sequence[str],
    threshold: float,
    groups: Sequence[object] | None = None,
    *,
    seed: int = 1,
    progress: Progress = silent,
) -> list[Match]:
    """As :func:`near_duplicates`, with the same texts of a group together: a corpus of one text is one match."""
    shingled = shingle_sets(texts)
    alike: dict[tuple[object, bytes], list[int]] = {}
    for place, shingles in enumerate(shingled):
        if len(shingles):
            key = (None if groups is None else groups[place], shingles.tobytes())
            alike.setdefault(key, []).append(place)
    members = list(alike.values())
    numbers = {group: number for number, group in enumerate(dict.fromkeys(group for group, _ in alike))}
    group_of = np.array([numbers[group] for group, _ in alike], dtype=np.int64)
    sets = [shingled[same[0]] for same in members]
    found = [Match(same, same, 1.0) for same in members if groups is None and len(same) > 1]
    for a, others in _candidates(minhash(sets, seed=seed, progress=progress), threshold):
        for b in (others if groups is None else others[group_of[others] != group_of[a]]).tolist():
            similarity = jaccard(sets[a], sets[b])
            if similarity >= threshold:
                found.append(Match(members[a], members[b], similarity))
    return found


def _candidates(signatures: NDArray[np.uint32], threshold: float) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each text with the later ones that share a band and an estimate near the threshold; no pair comes twice."""
    rows = rows_of_band(threshold)
    bands = [signatures[:, start : start + rows] for start in range(0, HASHES - rows + 1, rows)]
    keys = np.empty((len(signatures), len(bands)), dtype=np.int64)
    for number, band in enumerate(bands):
        _, inverse = np.unique(band, axis=0, return_inverse=True)
        keys[:, number] = inverse.ravel()
    least = threshold - MARGIN
    for number in range(len(bands)):
        order = np.argsort(keys[:, number], kind="stable")
        sizes = np.bincount(keys[:, number])
        ends = np.cumsum(sizes)
        for bucket in (order[end - size : end] for end, size in zip(ends, sizes, strict=True) if size > 1):
            for here, a in enumerate(bucket[:-1].tolist()):
                others = bucket[here + 1 :]
                others = others[~(keys[others, :number] == keys[a, :number]).any(axis=1)]
                others = others[(signatures[others] == signatures[a]).mean(axis=1) >= least]
                if len(others):
                    yield a, others


def shingle_sets(texts: Sequence[str]) -> list[Hashes]:
    """The sorted distinct 64-bit hashes of each text's shingles of three words, case ignored.

    A text of one or two words is one shingle of what it has.
    """
    of_word: dict[str, int] = {}

    def word_hash(word: str) -> int:
        known = of_word.get(word)
        if known is None:
            known = of_word[word] = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
        return known

    sets = []
    for text in texts:
        words = np.fromiter(map(word_hash, _WORD.findall(text.lower())), dtype=np.uint64)
        size = min(SHINGLE, max(len(words), 1))
        mixed = np.zeros(max(len(words) - size + 1, 0), dtype=np.uint64)
        for offset in range(size):
            mixed = _mix(mixed ^ words[offset : offset + len(mixed)])
        sets.append(np.unique(mixed))
    return sets


def minhash(shingled: Sequence[Hashes], *, seed: int = 1, progress: Progress = silent) -> NDArray[np.uint32]:
    """Signatures, shape (sets, 256): the minimum of each multiply-shift hash over the shingles."""
    rng = np.random.default_rng(seed)
    factor = rng.integers(0, 2**63, size=HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    addend = rng.integers(0, 2**63, size=HASHES, dtype=np.uint64)
    signatures = np.full((len(shingled), HASHES), np.iinfo(np.uint32).max, dtype=np.uint32)
    for place, shingles in enumerate(shingled):
        if len(shingles):
            hashed = (shingles[:, None] * factor + addend) >> np.uint64(32)
            signatures[place] = hashed.min(axis=0)
        if place % 1000 == 999:
            progress("near-duplicates", place + 1, len(shingled), "texts")
    return signatures


def rows_of_band(threshold: float) -> int:
    """The most rows a band may have for a pair at the threshold to be missed at most once in 100,000."""
    fit = [r for r in range(1, HASHES + 1) if (1 - threshold**r) ** (HASHES // r) <= MISS]
    return max(fit, default=1)


def jaccard(one: Hashes, other: Hashes) -> float:
    """|A & B| / |A | B| of two sorted arrays of distinct hashes; 0 if either is empty."""
    if not len(one) or not len(other):
        return 0.0
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def _mix(x: Hashes) -> Hashes:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014), so that the order of words counts."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
