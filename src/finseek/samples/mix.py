"""Mixing of line files in given proportions: the same lines in the same order for the same seed."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np

from finseek.core.artifacts import write_lines
from finseek.core.errors import InputError


def mix_files(parts: Mapping[Path, float], out: Path, *, seed: int) -> dict[str, dict[str, int]]:
    """Write as many lines of several JSON-lines files as their proportions allow, shuffled, none of them twice.

    Of each part a seeded choice is taken; the part that is scarce for its share decides how many there are in all.

    Args:
        parts: file and its share; shares are relative.
        out: the mixed file.
        seed: of the choice and of the order.

    Returns:
        of each part how many lines it had and how many were taken.

    Raises:
        InputError: no parts, a share that is not above zero, a missing or empty file.
    """
    if not parts or not all(0 < share < float("inf") for share in parts.values()):
        raise InputError(f"shares {list(parts.values())} must all be above zero: leave out what is not wanted")
    lines: list[list[bytes]] = []
    for path in parts:
        try:
            lines.append([line for line in path.read_bytes().split(b"\n") if line.strip()])
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): name a JSON-lines file") from error
        if not lines[-1]:
            raise InputError(f"{path} is empty: there is nothing to mix")
    # Exact fractions: 0.3 of 10 lines are 3, whatever the rounding of floats.
    shares = [Fraction(str(share)) for share in parts.values()]
    total = sum(shares)
    size = min(len(part) * total / share for part, share in zip(lines, shares, strict=True))
    rng = np.random.default_rng(seed)
    taken: list[bytes] = []
    counts = {}
    for path, part, share in zip(parts, lines, shares, strict=True):
        number = int(size * share / total)
        taken += [part[place] for place in rng.permutation(len(part))[:number].tolist()]
        counts[str(path)] = {"lines": len(part), "taken": number}
    write_lines(out, (taken[place] for place in rng.permutation(len(taken)).tolist()))
    return counts
