"""Merging a PEFT adapter into a checkpoint as a stream: W + (alpha / r) B A, strip by strip (arXiv 2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.checkpoint.fp8 import BY_HEADER, to_bits, to_float32
from finseek.checkpoint.names import Weight
from finseek.checkpoint.shards import ITEMSIZE, read_header, read_json
from finseek.checkpoint.stream.direct import Bytes
from finseek.checkpoint.stream.transforms import Look, typed
from finseek.core.errors import InputError

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
# Settings of PEFT that change what an adapter means, with the value that means plain LoRA.
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "bias": ("none",),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
}


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        rank: r.
        scale: alpha / r, or alpha / sqrt(r) with rsLoRA.
        pairs: A (r, in) and B (out, r) of each adapted module, by the module's name; of stacked experts A (E*r, in) and
            B (out, r*E), by the name of the stacked parameter.
    """

    rank: int
    scale: float
    pairs: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


def read_adapter(folder: Path) -> Adapter:
    """Read a PEFT adapter folder.

    Raises:
        InputError: it is not plain LoRA, half of a pair is missing, or config and matrices contradict each other.
    """
    for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / file).is_file():
            raise InputError(
                f"{folder}: {file} is missing; an adapter folder holds {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}"
            )
    config = read_json(folder / ADAPTER_CONFIG)
    for key, allowed in PLAIN.items():
        if config.get(key, allowed[0]) not in allowed:
            raise InputError(
                f"{folder}: {key} {config[key]!r} cannot be merged, only {allowed[0]!r}; merge it with PEFT"
            )
    halves: dict[str, dict[str, NDArray[np.float32]]] = {}
    raw = (folder / ADAPTER_WEIGHTS).read_bytes()
    for info in read_header(folder / ADAPTER_WEIGHTS)[0]:
        module, _, half = info.name.removesuffix(".weight").rpartition(".lora_")
        if half not in ("A", "B") or not info.name.startswith(PREFIX) or info.dtype not in BY_HEADER:
            raise InputError(f"{folder}: {info.name} is no matrix of a LoRA pair; merge this adapter with PEFT")
        target = BY_HEADER[info.dtype]
        bits = np.frombuffer(raw, np.uint8, info.nbytes, info.begin).copy().view(target.bits)
        halves.setdefault(module.removeprefix(PREFIX), {})[half] = to_float32(bits, target).reshape(info.shape)
    alone = [module for module, pair in halves.items() if len(pair) < 2]
    if alone:
        raise InputError(f"{folder}: {alone[0]} has only one matrix of its pair; the adapter is damaged")
    if not halves:
        raise InputError(f"{folder}: {ADAPTER_WEIGHTS} holds no matrix: there is nothing to merge")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float)):
        raise InputError(f"{folder}: r {rank!r} and lora_alpha {alpha!r} are no rank and scale; the adapter is damaged")
    for module, pair in halves.items():
        stacked = module.endswith((".experts", ".experts.base_layer"))
        if pair["A"].shape[0] != rank and not (stacked and pair["A"].shape[0] % rank == 0):
            raise InputError(
                f"{folder}: {module} has rank {pair['A'].shape[0]}, {ADAPTER_CONFIG} says r {rank}, by which it would"
                " be scaled; the two files do not belong together"
            )
        if not all(np.isfinite(half).all() for half in pair.values()):
            raise InputError(f"{folder}: {module} holds NaN or infinite numbers; the training diverged")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Adapter(rank, scale, {_parameter(module): (pair["A"], pair["B"]) for module, pair in halves.items()})


def _parameter(module: str) -> str:
    """The adapted parameter: PEFT wraps the two stacks of experts in one another, `down_proj` outermost."""
    if module.endswith(".mlp.experts.base_layer"):
        return module.removesuffix("base_layer") + "gate_up_proj"
    return module + ".down_proj" if module.endswith(".mlp.experts") else module + ".weight"


def delta_of(adapter: Adapter, weight: Weight) -> tuple[str, NDArray[np.float32], NDArray[np.float32]] | None:
    """The adapted parameter, B (out, r), scaled, and A (r, in) for one weight of a checkpoint; None if it has none."""
    if weight.name in adapter.pairs:
        a, b = adapter.pairs[weight.name]
        return weight.name, b * np.float32(adapter.scale), a
    place = weight.place("finseek")
    if place is None or not place.stacked or place.name not in adapter.pairs:
        return None
    a, b = adapter.pairs[place.name]  # A is stacked expert by expert, B rank by rank
    mine_a = a.reshape(-1, adapter.rank, a.shape[1])[weight.expert]
    mine_b = b.reshape(b.shape[0], adapter.rank, -1)[:, :, weight.expert]
    if place.part is not None:
        mine_b = np.split(mine_b, place.part[1])[place.part[0]]
    return place.name, mine_b * np.float32(adapter.scale), mine_a


@dataclass
class Merge(Look):
    """W + B A in float32, rounded once to the type of W."""

    b: NDArray[np.float32]
    a: NDArray[np.float32]

    def __post_init__(self) -> None:
        if (self.b.shape[0], self.a.shape[1]) != self.info.shape or self.b.shape[1] != self.a.shape[0]:
            raise InputError(f"{self.info.name}: B {self.b.shape} and A {self.a.shape} do not fit {self.info.shape}")
        self.units, columns = self.info.shape
        self.unit_in = self.unit_out = columns * ITEMSIZE[self.info.dtype]

    def __call__(self, top: int, raw: Bytes, out: Bytes) -> list[Bytes]:
        """Rows from `top` on."""
        self.look(top, raw)
        target = BY_HEADER[self.info.dtype]
        w = to_float32(typed(raw, target.bits), target).reshape(-1, self.a.shape[1])
        merged = w + self.b[top : top + len(w)] @ self.a
        out[: raw.nbytes] = to_bits(merged, target).reshape(-1).view(np.uint8)
        return [out[: raw.nbytes]]
