"""Tokens of a file of samples, kept under the hash of everything that decides them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.core.artifacts import atomic_file, sha256_file, sha256_json
from finseek.core.progress import Progress, silent
from finseek.samples.encode import Encoded, Encoder
from finseek.samples.records import Sample, iterate_samples
from finseek.samples.tokenizer import TOKENIZER_FILES

VERSION = 1


@dataclass(frozen=True)
class Tokens:
    """Encoded samples end to end.

    Attributes:
        input_ids: int32, shape (sum of T,).
        role: int8, shape (sum of T,).
        starts: int64, shape (samples + 1,): sample i is [starts[i], starts[i + 1]).
        truncated: bool, shape (samples,).
    """

    input_ids: NDArray[np.int32]
    role: NDArray[np.int8]
    starts: NDArray[np.int64]
    truncated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.truncated)

    def __getitem__(self, place: int) -> Encoded:
        here = slice(int(self.starts[place]), int(self.starts[place + 1]))
        return Encoded(self.input_ids[here], self.role[here], bool(self.truncated[place]))


def encode_file(
    samples: Path,
    tokenizer: Path,
    template: str,
    max_length: int | None,
    cache: Path | None,
    *,
    truncate: bool = False,
    progress: Progress = silent,
) -> Tokens:
    """Encode every sample of a file, or take the tokens that an earlier call left in the cache.

    The name in the cache is the hash of the samples, the tokenizer, the template, the length and ``truncate``: what
    was made of other content is never taken, and two writers write the same bytes.

    Args:
        samples: JSON lines.
        tokenizer: folder.
        template: as for :class:`Encoder`.
        max_length: most tokens of a sample.
        cache: folder, or None for none.
        truncate: as for :meth:`Encoder.encode`.
        progress: told now and then.
    """
    files = [tokenizer / name for name in TOKENIZER_FILES]
    key = sha256_json(
        {
            "version": VERSION,
            "samples": sha256_file(samples),
            "tokenizer": [sha256_file(file) if file.is_file() else None for file in files],
            "template": template,
            "max_length": max_length,
            "truncate": truncate,
        }
    )
    kept = cache / f"{key}.npz" if cache else None
    if kept is not None and kept.is_file():
        with np.load(kept) as arrays:
            return Tokens(arrays["input_ids"], arrays["role"], arrays["starts"], arrays["truncated"])
    encoder = Encoder(tokenizer, template)
    tokens = encode_all(iterate_samples(samples), encoder, max_length, truncate=truncate, progress=progress)
    if kept is not None:
        with atomic_file(kept) as partial, partial.open("wb") as out:
            np.savez(out, **_arrays(tokens))
    return tokens


def encode_all(
    samples: Iterable[Sample],
    encoder: Encoder,
    max_length: int | None = None,
    *,
    truncate: bool = False,
    progress: Progress = silent,
) -> Tokens:
    """Encode samples end to end, each as :meth:`Encoder.encode` does."""
    encoded = []
    for done, sample in enumerate(samples, 1):
        encoded.append(encoder.encode(sample, max_length, truncate=truncate))
        if done % 1000 == 0:
            progress("encode", done, None, "samples")
    starts = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(one.input_ids) for one in encoded], out=starts[1:])
    return Tokens(
        np.concatenate([one.input_ids for one in encoded] or [np.empty(0, np.int32)]),
        np.concatenate([one.role for one in encoded] or [np.empty(0, np.int8)]),
        starts,
        np.array([one.truncated for one in encoded], dtype=bool),
    )


def _arrays(tokens: Tokens) -> dict[str, Any]:
    return {name: getattr(tokens, name) for name in ("input_ids", "role", "starts", "truncated")}
