"""Where every tensor of the new checkpoint will lie, known to the byte before the first is written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from finseek.checkpoint.shards import ITEMSIZE, SINGLE
from finseek.checkpoint.stream.direct import PAGE, aligned


@dataclass(frozen=True, slots=True)
class Out:
    """A tensor to be written.

    Attributes:
        name: in the new checkpoint.
        dtype: its name in a safetensors header.
        shape: sizes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        return math.prod(self.shape) * ITEMSIZE[self.dtype]


@dataclass(frozen=True)
class ShardPlan:
    """One file of the new checkpoint.

    Attributes:
        file: name.
        header: the first bytes, up to the first tensor; their length is a multiple of `PAGE`.
        begins: first byte of each tensor, by name.
        length: of the file.
    """

    file: str
    header: bytes
    begins: Mapping[str, int]
    length: int

    @property
    def start(self) -> int:
        """Where the tensors begin; they lie without gaps from there to the end."""
        return len(self.header)


def plan_shards(groups: Iterable[tuple[Out, ...]], shard_bytes: int) -> list[ShardPlan]:
    """Fill files of at most `shard_bytes` of tensors (a larger group gets a file of its own), in the order given.

    The tensors of a group come from one source, and lie in one file.

    Within a file, tensors that are whole pages come first, so that they can be written directly; then the wider types,
    so that every tensor is aligned to its type.
    """
    files: list[list[Out]] = []
    size = 0
    for group in groups:
        more = sum(tensor.nbytes for tensor in group)
        if not files or size + more > shard_bytes:
            files.append([])
            size = 0
        files[-1].extend(group)
        size += more
    n = len(files)
    names = [SINGLE] if n == 1 else [f"model-{i + 1:05d}-of-{n:05d}.safetensors" for i in range(n)]
    return [_plan(name, held) for name, held in zip(names, files, strict=True)]


def index_of(plans: list[ShardPlan]) -> dict[str, Any] | None:
    """The index of a folder of several files; a single one needs none."""
    if [plan.file for plan in plans] == [SINGLE]:
        return None
    places = {name: plan.file for plan in plans for name in plan.begins}
    total = sum(plan.length - plan.start for plan in plans)
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}


def _plan(file: str, tensors: list[Out]) -> ShardPlan:
    ordered = sorted(tensors, key=lambda t: (t.nbytes % PAGE != 0, -ITEMSIZE[t.dtype]))
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begins, at = {}, 0
    for tensor in ordered:
        begins[tensor.name] = at
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    start = aligned(8 + len(text))
    header = (start - 8).to_bytes(8, "little") + text.ljust(start - 8)
    return ShardPlan(file, header, {name: start + begin for name, begin in begins.items()}, start + at)
