"""Near-duplicates between the splits of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from finseek.core.progress import Progress, silent
from finseek.theses import Thesis
from finseek.theses.near_duplicates import matches

MOST_PAIRS = 1000


def near_duplicate_findings(
    splits: Mapping[str, Sequence[Thesis]], threshold: float = 0.8, progress: Progress = silent
) -> dict[str, Any]:
    """Pairs of theses of different splits whose texts are nearly the same.

    Args:
        splits: theses by name of their split.
        threshold: Jaccard similarity of word 3-shingles of reasoning and support.
        progress: told now and then.

    Returns:
        JSON-able: the threshold, counts by pair of splits, and the closest 1,000 pairs with their exact similarity.
    """
    theses = [thesis for part in splits.values() for thesis in part]
    names = [name for name, part in splits.items() for _ in part]
    texts = [f"{thesis.reasoning}\n{thesis.support}" for thesis in theses]
    found = sorted(matches(texts, threshold, names, progress=progress), key=lambda match: (-match.jaccard, match.first))
    counts: Counter[str] = Counter()
    for match in found:
        one, other = sorted((match.first, match.second))
        counts[f"{names[one[0]]}/{names[other[0]]}"] += len(one) * len(other)
    pairs = (
        (a, b, match.jaccard) for match in found for one, other in [sorted((match.first, match.second))]
        for a in one for b in other
    )  # fmt: skip
    return {
        "threshold": threshold,
        "theses": len(theses),
        "counts": dict(sorted(counts.items())),
        "pairs": [
            {
                "splits": [names[a], names[b]],
                "uids": [theses[a].uid, theses[b].uid],
                "jaccard": round(similarity, 6),
            }
            for a, b, similarity in islice(pairs, MOST_PAIRS)
        ],
    }
