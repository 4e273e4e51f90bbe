"""Near-duplicates by MinHash over word shingles, every candidate verified exactly.

s          Jaccard similarity |A & B| / |A | B| of two sets of shingles
K = b·r    hashes of a signature in b bands of r rows; P(candidate) = 1 − (1 − s^r)^b  (Broder 1997; Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, chapter 3)
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finseek.core.progress import Progress, silent

SHINGLE = 3
HASHES = 256
MISS = 1e-5

Hashes = NDArray[np.uint64]
_WORD = re.compile(r"\w+")


class Pair(NamedTuple):
    """Two texts, by place, first < second, and their exact Jaccard similarity."""

    first: int
    second: int
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

    A pair at the threshold is missed with probability at most 1e-5, a closer pair more rarely; no other pair is
    returned, because each candidate is verified on its shingles.

    Args:
        texts: any number; a text without words is similar to none.
        threshold: in (0, 1].
        groups: of each text; then only pairs of different groups are returned.
        seed: of the hash functions.
        progress: told now and then.
    """
    shingled = shingle_sets(texts)
    signatures = minhash(shingled, seed=seed, progress=progress)
    rows = rows_of_band(threshold)
    candidates: set[tuple[int, int]] = set()
    alive = [place for place, shingles in enumerate(shingled) if len(shingles)]
    for start in range(0, HASHES - rows + 1, rows):
        buckets: defaultdict[bytes, list[int]] = defaultdict(list)
        for place in alive:
            buckets[signatures[place, start : start + rows].tobytes()].append(place)
        for members in buckets.values():
            for here, first in enumerate(members):
                for second in members[here + 1 :]:
                    if groups is None or groups[first] != groups[second]:
                        candidates.add((first, second))
    found = (Pair(a, b, jaccard(shingled[a], shingled[b])) for a, b in sorted(candidates))
    return [pair for pair in found if pair.jaccard >= threshold]


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
    """Signatures, shape (texts, 256): the minimum of each multiply-shift hash over the shingles."""
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
