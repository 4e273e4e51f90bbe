"""Safetensors from their headers alone: what lies where in a checkpoint folder, checked to the byte.

A file is 8 bytes of header length, a JSON header, then the tensors without gap or overlap
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import orjson

from finseek.core.artifacts import probe_file
from finseek.core.errors import InputError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
CONFIG = "config.json"
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
LONGEST_HEADER = 100_000_000  # bytes; the limit of the format
ITEMSIZE = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip


class TensorInfo(msgspec.Struct, frozen=True, gc=False):
    """One tensor of a checkpoint; there are so many that the garbage collector does not track them.

    Attributes:
        name: in the header.
        dtype: its name in the header.
        shape: sizes.
        shard: file name.
        begin: first byte in the file.
        nbytes: length.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: str
    begin: int
    nbytes: int


@dataclass(frozen=True)
class Checkpoint:
    """A folder of safetensors, by its headers.

    Attributes:
        folder: where.
        config: `config.json`, empty if there is none.
        tensors: by name, in the order of files and bytes.
        shards: length of each weight file, by file name.
        header_hashes: SHA-256 of each header.
        indexed: whether the folder has an index.
        total_size: what the index says that all tensors take, if it says so.
    """

    folder: Path
    config: dict[str, Any]
    tensors: Mapping[str, TensorInfo]
    shards: Mapping[str, int]
    header_hashes: Mapping[str, str] = field(repr=False)
    indexed: bool
    total_size: int | None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over headers, lengths and some blocks of all shards: releases of a model differ in numbers alone."""
        lines = [
            f"{name} {self.shards[name]} {self.header_hashes[name]} {probe_file(self.folder / name)}"
            for name in sorted(self.shards)
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Read and check all headers of a checkpoint folder; no weight is read.

    Raises:
        InputError: a shard is missing, truncated, ill-formed or not in the index; a tensor is twice there, or not where
            the index says.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; a checkpoint is a folder with {SINGLE} or {INDEX}")
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    index = read_json(folder / INDEX) if (folder / INDEX).is_file() else None
    files = shard_names(folder, index)
    tensors: dict[str, TensorInfo] = {}
    lengths, hashes = {}, {}
    for file in files:
        held, lengths[file], hashes[file] = read_header(folder / file)
        for tensor in held:
            if tensor.name in tensors:
                first = tensors[tensor.name].shard
                raise InputError(f"{folder}: tensor {tensor.name} lies in {first} and in {file}; remove one of them")
            tensors[tensor.name] = tensor
    total = None
    if index is not None:
        compare_index(folder, index["weight_map"], tensors)
        metadata = index.get("metadata")
        total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return Checkpoint(folder, config, tensors, lengths, hashes, index is not None, total)


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder whose weights are pickles alone: to load one is to run what its maker put in it.

    Raises:
        InputError: there are such files and no safetensors.
    """
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES) if folder.is_dir() else []
    if pickles and not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} holds its weights as pickle ({pickles[0]}), which can run code when it is loaded: take its "
            "safetensors, or convert it where you trust it"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: it is not one.
    """
    try:
        value = orjson.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); download the file again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: {type(value).__name__}, where a JSON object belongs")
    return value


def shard_names(folder: Path, index: dict[str, Any] | None) -> list[str]:
    """The weight files of a folder, sorted; every file of the index and no other must be there."""
    present = sorted(path.name for path in folder.glob("*.safetensors") if not path.name.startswith("."))
    if index is None:
        if not present:
            raise InputError(f"{folder}: no weights; a checkpoint folder holds {SINGLE} or {INDEX} and its shards")
        if present != [SINGLE]:
            raise InputError(f"{folder}: {len(present)} weight files and no {INDEX}; download the index")
        return present
    places = index.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise InputError(f"{folder / INDEX}: no weight_map of tensor names to file names; download the index again")
    named = sorted(set(places.values()))
    missing = [file for file in named if file not in present]
    if missing:
        raise InputError(
            f"{folder}: shard {missing[0]} of the index is missing ({len(missing)} of {len(named)}); download it"
        )
    stray = [file for file in present if file not in named and file.startswith("model")]
    if stray:
        raise InputError(f"{folder}: {stray[0]} is not in the index; remove the file, or download its index")
    return named


def compare_index(folder: Path, places: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> None:
    """Every tensor lies in the shard that the index names, and the index names every tensor."""
    for name, file in places.items():
        if name not in tensors:
            raise InputError(f"{folder}: the index places {name} in {file}, which does not hold it; download {file}")
        if tensors[name].shard != file:
            raise InputError(f"{folder}: the index places {name} in {file}, but {tensors[name].shard} holds it")
    unnamed = [name for name in tensors if name not in places]
    if unnamed:
        shard = tensors[unnamed[0]].shard
        raise InputError(f"{folder}: {unnamed[0]} of {shard} is not in the index ({len(unnamed)} such tensors)")


def read_header(path: Path) -> tuple[list[TensorInfo], int, str]:
    """The tensors of one safetensors file by position, its length, and the SHA-256 of its header.

    Raises:
        InputError: the file is truncated, too long, or its header is ill-formed.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        size = int.from_bytes(first, "little")
        if len(first) < 8 or size > min(length - 8, LONGEST_HEADER):
            raise InputError(f"{path}: {length} bytes cannot hold a header of {size}; the file is truncated or damaged")
        raw = file.read(size)
    try:
        pairs = _parse(raw)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: the header is damaged ({error}); download the file again") from None
    if not isinstance(pairs, dict):
        raise InputError(f"{path}: the header is no JSON object; download the file again")
    pairs.pop("__metadata__", None)
    shard = path.name
    tensors = [_tensor(path, shard, name, entry, 8 + size) for name, entry in pairs.items()]
    tensors.sort(key=attrgetter("begin", "nbytes"))
    end = 8 + size
    for tensor in tensors:
        if tensor.begin != end:
            what = "overlaps the tensor before it" if tensor.begin < end else "leaves a gap before it"
            raise InputError(f"{path}: {tensor.name} {what} (byte {tensor.begin}, not {end}); the file is damaged")
        end = tensor.begin + tensor.nbytes
    if length != end:
        what = "truncated" if length < end else "too long"
        raise InputError(f"{path}: {what}: {length} bytes, where its header says {end}; download it again")
    return tensors, length, hashlib.sha256(raw).hexdigest()


def _parse(raw: bytes) -> Any:
    """JSON without a key twice; to look at every pair triples the time, so it is done where their number is odd."""
    value = orjson.loads(raw)
    keys = 0
    if isinstance(value, dict):
        keys = len(value) + sum(len(entry) for entry in value.values() if isinstance(entry, dict))
    return value if raw.count(b'":') == keys else json.loads(raw, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} is there twice")
    return table


@lru_cache(maxsize=4096, typed=True)  # a model has few shapes and many tensors
def _shape(*sizes: Any) -> tuple[tuple[Any, ...], int]:
    """Sizes as one tuple for all tensors that have them, and their product; -1 if they are no sizes."""
    return sizes, math.prod(sizes) if all(type(n) is int and n >= 0 for n in sizes) else -1


def _tensor(path: Path, shard: str, name: str, entry: Any, start: int) -> TensorInfo:
    try:
        dtype, (begin, end) = entry["dtype"], entry["data_offsets"]
        shape, numbers = _shape(*entry["shape"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: {name} has no dtype, shape and data_offsets; the header is damaged") from None
    if numbers < 0 or not (type(begin) is type(end) is int and 0 <= begin <= end):
        raise InputError(f"{path}: {name} has shape {shape} and offsets {begin}, {end}; the header is damaged")
    if not isinstance(dtype, str) or dtype not in ITEMSIZE:
        raise InputError(f"{path}: {name} is {dtype!r}, none of {', '.join(ITEMSIZE)}")
    if (needed := numbers * ITEMSIZE[dtype]) != end - begin:
        raise InputError(f"{path}: {name}, {dtype} {shape}, takes {needed} bytes, but its offsets span {end - begin}")
    return TensorInfo(name, dtype, shape, shard, start + begin, end - begin)
