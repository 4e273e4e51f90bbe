"""The scales of a block-FP8 checkpoint: paired with their weights, checked, and read before anything else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.checkpoint.fp8 import BY_HEADER, FORMATS, SCALE_SUFFIX, Block, Format, grid, to_float32
from finseek.checkpoint.shards import Checkpoint, TensorInfo
from finseek.core.errors import InputError


@dataclass(frozen=True)
class Quantization:
    """How a checkpoint is quantised.

    Attributes:
        block: rows and columns of a block.
        pairs: each FP8 weight with its scale, by the weight's name.
    """

    block: Block
    pairs: Mapping[str, tuple[TensorInfo, TensorInfo]]

    def form(self, name: str) -> Format:
        """The number format of a weight."""
        return FORMATS[self.pairs[name][0].dtype]


def block_size(config: Mapping[str, Any]) -> Block | None:
    """The block of `quantization_config`, or None without one.

    Raises:
        InputError: quantised in another way than block FP8.
    """
    settings = config.get("quantization_config")
    if settings is None:
        return None
    if not isinstance(settings, dict):
        raise InputError(f"quantization_config {settings!r} is no JSON object; take the one of the original checkpoint")
    method, block = settings.get("quant_method"), settings.get("weight_block_size")
    if method != "fp8":
        raise InputError(f"quantization_config.quant_method {method!r} is not 'fp8'; only block FP8 is converted")
    if not (isinstance(block, list) and len(block) == 2 and all(type(n) is int and n > 0 for n in block)):
        raise InputError(f"quantization_config.weight_block_size {block!r} is no pair of sizes, such as [128, 128]")
    return block[0], block[1]


def faults(checkpoint: Checkpoint, block: Block | None) -> list[str]:
    """Every FP8 weight without its scale, scale without its weight, and scale of a wrong kind or shape."""
    found = []
    tensors = checkpoint.tensors
    for tensor in tensors.values():
        if tensor.name.endswith(SCALE_SUFFIX):
            weight = tensors.get(tensor.name.removesuffix(SCALE_SUFFIX))
            if weight is None:
                found.append(f"scale {tensor.name} has no weight {tensor.name.removesuffix(SCALE_SUFFIX)}")
            elif weight.dtype not in FORMATS:
                found.append(f"scale {tensor.name} belongs to a weight in {weight.dtype}, not in FP8")
        if tensor.dtype not in FORMATS:
            continue
        scale = tensors.get(tensor.name + SCALE_SUFFIX)
        if len(tensor.shape) != 2 or 0 in tensor.shape:
            found.append(f"FP8 weight {tensor.name} has shape {list(tensor.shape)}, not that of a matrix")
        elif scale is None:
            found.append(f"FP8 weight {tensor.name} ({tensor.shard}) has no scale {tensor.name}{SCALE_SUFFIX}")
        elif block and scale.shape != grid(tensor.shape, block):
            wanted = list(grid(tensor.shape, block))
            found.append(
                f"scale {scale.name} has shape {list(scale.shape)}, where {list(tensor.shape)} in blocks of "
                f"{list(block)} needs {wanted}"
            )
        elif scale.dtype not in BY_HEADER:
            found.append(f"scale {scale.name} is {scale.dtype}, not one of {', '.join(BY_HEADER)}")
    return found


def read_quantization(checkpoint: Checkpoint) -> Quantization:
    """Pair FP8 weights with their scales.

    Raises:
        InputError: any of `faults`, or FP8 weights without a `quantization_config`.
    """
    weights = [tensor for tensor in checkpoint.tensors.values() if tensor.dtype in FORMATS]
    block = block_size(checkpoint.config)
    if weights and block is None:
        raise InputError(
            f"{checkpoint.folder}: {len(weights)} FP8 weights, but config.json has no quantization_config with their "
            "weight_block_size; add the one of the original checkpoint"
        )
    found = faults(checkpoint, block)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InputError(f"{checkpoint.folder}: {found[0]}{more}; the checkpoint is incomplete or damaged")
    pairs = {weight.name: (weight, checkpoint.tensors[weight.name + SCALE_SUFFIX]) for weight in weights}
    return Quantization(block or (1, 1), pairs)


def read_scales(checkpoint: Checkpoint, quantization: Quantization) -> dict[str, NDArray[np.float32]]:
    """All scales in memory, by the weight's name: a four-thousandth of the bytes of the weights.

    Raises:
        InputError: a scale is negative, infinite or NaN.
    """
    scales = {}
    by_shard: dict[str, list[tuple[TensorInfo, TensorInfo]]] = {}
    for pair in quantization.pairs.values():
        by_shard.setdefault(pair[1].shard, []).append(pair)
    for shard, pairs in by_shard.items():
        descriptor = os.open(checkpoint.folder / shard, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for weight, scale in pairs:
                raw = os.pread(descriptor, scale.nbytes, scale.begin)
                target = BY_HEADER[scale.dtype]
                values = to_float32(np.frombuffer(bytearray(raw), target.bits), target).reshape(scale.shape)
                if not (np.isfinite(values) & (values >= 0)).all():
                    place = [int(n) for n in np.argwhere(~(np.isfinite(values) & (values >= 0)))[0]]
                    raise InputError(
                        f"{checkpoint.folder / shard}: {scale.name}{place} is {values[tuple(place)]}; a scale is "
                        "finite and not negative: the file is damaged"
                    )
                scales[weight.name] = values
        finally:
            os.close(descriptor)
    return scales
