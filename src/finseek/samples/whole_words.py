"""Byte-pair merges that make chosen words one token each, within the size of the vocabulary.

The merges of a BPE are greedy, so the first k of them are the BPE of a smaller vocabulary. The last ones give way to
merges that join the pieces of each chosen word from the left. Appended merges rank below all others and below those
of earlier words, so none undoes another; each may join at several places of a word, so it is applied before the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

Merge = tuple[str, str]


def with_whole_words(
    alphabet: Sequence[str], merges: Sequence[Merge], words: Sequence[str], vocab_size: int
) -> tuple[dict[str, int], list[Merge]]:
    """Vocabulary and merges in which every word that fits is one token.

    Args:
        alphabet: tokens that no merge makes, in the order of their ids.
        merges: as trained, best first.
        words: in the tokenizer's own (byte-level) spelling, most important first.
        vocab_size: at most this many tokens; words that would take more than half of the room are left as they are.
    """
    room = (vocab_size - len(alphabet)) // 2
    keep = len(merges)
    while True:
        vocabulary = {token: place for place, token in enumerate(alphabet)}
        ranks: dict[Merge, int] = {}
        for merge in merges[:keep]:
            _append(merge, ranks, vocabulary)
        before = len(vocabulary)
        for word in words:
            pieces = _apply(list(word), ranks)
            if len(vocabulary) - before + len(pieces) - 1 > room:
                continue
            while len(pieces) > 1:
                _append((pieces[0], pieces[1]), ranks, vocabulary)
                pieces = _apply(list(word), ranks)
        excess = len(vocabulary) - vocab_size
        if excess <= 0:
            return vocabulary, list(ranks)
        keep -= excess


def _append(merge: Merge, ranks: dict[Merge, int], vocabulary: dict[str, int]) -> None:
    ranks.setdefault(merge, len(ranks))
    vocabulary.setdefault(merge[0] + merge[1], len(vocabulary))


def _apply(pieces: list[str], ranks: dict[Merge, int]) -> list[str]:
    """The pieces of a word after all merges, the best-ranked pair first, as a BPE tokenizer does it."""
    while len(pieces) > 1:
        pairs = list(pairwise(pieces))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        place = pairs.index(best)
        pieces[place : place + 2] = [best[0] + best[1]]
    return pieces
