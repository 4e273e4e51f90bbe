"""The hash of a tensor: BLAKE3 where `[speed]` brought it, SHA-256 elsewhere, and which of them is written with it.

Both are cryptographic. SHA-256 at 1.8 GB a second is most of what a conversion computes; BLAKE3 takes a third of it
(https://github.com/BLAKE3-team/BLAKE3-specs).
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

from finseek.core.errors import MissingPart

ALGORITHMS = ("blake3", "sha256")


class Hash(Protocol):
    """As in hashlib."""

    def update(self, data: Any, /) -> object:
        """Take more bytes."""

    def hexdigest(self) -> str:
        """Of all bytes so far."""


@cache
def fastest() -> str:
    """The algorithm that new tensors are hashed with."""
    return "blake3" if find_spec("blake3") else "sha256"


def new_hash(algorithm: str) -> Hash:
    """An empty hash.

    Raises:
        MissingPart: BLAKE3 is not installed.
    """
    if algorithm != "blake3":
        return hashlib.new(algorithm)
    try:
        from blake3 import blake3
    except ImportError:
        raise MissingPart("blake3", "speed", "a ledger with BLAKE3 hashes") from None
    return blake3()


def algorithm_of(digest: str) -> str:
    """The algorithm of a digest `algorithm:hex`.

    Raises:
        ValueError: it is of none that is known.
    """
    algorithm = digest.partition(":")[0]
    if algorithm not in ALGORITHMS:
        raise ValueError(f"digest {digest!r} is of none of {', '.join(ALGORITHMS)}")
    return algorithm
