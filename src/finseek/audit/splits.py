"""Near-duplicates between the splits of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from finseek.core.progress import Progress, silent
from finseek.theses import Thesis, near_duplicates


def near_duplicate_findings(
    splits: Mapping[str, Sequence[Thesis]], threshold: float = 0.8, progress: Progress = silent
) -> dict[str, Any]:
    """Pairs of theses of different splits whose texts are nearly the same.

    Args:
        splits: theses by name of their split.
        threshold: Jaccard similarity of word 3-shingles of reasoning and support.
        progress: told now and then.

    Returns:
        JSON-able: the threshold, counts by pair of splits, and each pair with its exact similarity.
    """
    theses = [thesis for part in splits.values() for thesis in part]
    names = [name for name, part in splits.items() for _ in part]
    texts = [f"{thesis.reasoning}\n{thesis.support}" for thesis in theses]
    pairs = near_duplicates(texts, threshold, names, progress=progress)
    counts = Counter(f"{names[pair.first]}/{names[pair.second]}" for pair in pairs)
    return {
        "threshold": threshold,
        "theses": len(theses),
        "counts": dict(sorted(counts.items())),
        "pairs": [
            {
                "splits": [names[pair.first], names[pair.second]],
                "uids": [theses[pair.first].uid, theses[pair.second].uid],
                "jaccard": round(pair.jaccard, 6),
            }
            for pair in pairs
        ],
    }
