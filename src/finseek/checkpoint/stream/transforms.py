"""What can happen to a tensor on its way: dequantise, cast, copy, or only be looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from finseek.checkpoint.fp8 import BY_HEADER, FORMATS, Block, Format, Target, count_nonfinite, to_bits, to_float32
from finseek.checkpoint.kernels import Kernel
from finseek.checkpoint.shards import ITEMSIZE, TensorInfo
from finseek.checkpoint.stream.direct import Bytes
from finseek.core.errors import FinseekError

LARGEST_FINITE = {"BF16": 0x7F7F, "F16": 0x7BFF, "F32": 0x7F7FFFFF}  # bit patterns without the sign


def nonfinite(raw: Bytes, dtype: str) -> int:
    """How many numbers of a float type are NaN or infinite; 0 for other types."""
    if dtype in FORMATS:
        return count_nonfinite(raw, FORMATS[dtype])
    if dtype not in BY_HEADER:
        return 0
    bits = typed(raw, BY_HEADER[dtype].bits)
    magnitude = bits & bits.dtype.type(np.iinfo(bits.dtype).max >> 1)
    return int(np.count_nonzero(magnitude > LARGEST_FINITE[dtype]))


@dataclass
class Look:
    """Counts what is NaN or infinite; the base of the others.

    Attributes:
        info: the tensor.
        stop: whether to raise at the first number that is not finite.
        count: how many were found.
    """

    info: TensorInfo
    stop: bool
    count: int = field(default=0, init=False)
    step: int = field(default=1, init=False)
    unit_out: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.units, self.unit_in = math.prod(self.info.shape), ITEMSIZE[self.info.dtype]

    def look(self, top: int, raw: Bytes) -> None:
        """Count, and stop if asked to.

        Raises:
            FinseekError: a number is not finite.
        """
        found = nonfinite(raw, self.info.dtype)
        self.count += found
        if found and self.stop:
            raise FinseekError(not_finite(self.info, found))

    def __call__(self, top: int, raw: Bytes, out: Bytes) -> list[Bytes]:
        """Nothing is written."""
        self.look(top, raw)
        return []


def not_finite(info: TensorInfo, count: int) -> str:
    """What to say of a damaged tensor."""
    return f"{info.shard}: {info.name} holds {count} NaN or infinite numbers; --on-nan keep converts them as they are"


@dataclass
class Copy(Look):
    """The same bytes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.unit_out = self.unit_in

    def __call__(self, top: int, raw: Bytes, out: Bytes) -> list[Bytes]:
        """Copied, so that they lie aligned."""
        self.look(top, raw)
        out[: raw.nbytes] = raw
        return [out[: raw.nbytes]]


@dataclass
class Cast(Look):
    """From one of BF16, F16, F32 to another, rounded to nearest even."""

    target: Target

    def __post_init__(self) -> None:
        super().__post_init__()
        self.unit_out = self.target.itemsize

    def __call__(self, top: int, raw: Bytes, out: Bytes) -> list[Bytes]:
        """By way of float32, which holds all three exactly."""
        self.look(top, raw)
        source = BY_HEADER[self.info.dtype]
        bits = to_bits(to_float32(typed(raw, source.bits), source), self.target)
        piece = out[: bits.nbytes]
        piece[:] = bits.view(np.uint8)
        if nonfinite(piece, self.target.header) > nonfinite(raw, self.info.dtype):
            raise FinseekError(_too_large(self.info, self.target))
        return [piece]


@dataclass
class Dequantize(Look):
    """Block FP8 to a wider type."""

    scales: NDArray[np.float32]
    block: Block
    target: Target
    kernel: Kernel

    def __post_init__(self) -> None:
        self.form: Format = FORMATS[self.info.dtype]
        self.units, self.unit_in = self.info.shape
        self.step, self.unit_out = self.block[0], self.unit_in * self.target.itemsize

    def __call__(self, top: int, raw: Bytes, out: Bytes) -> list[Bytes]:
        """Rows from `top` on, a multiple of the block's height."""
        self.look(top, raw)
        codes = raw.reshape(-1, self.unit_in)
        piece = out[: raw.nbytes * self.target.itemsize]
        bits = piece.view(self.target.bits).reshape(codes.shape)
        first = top // self.block[0]
        scales = self.scales[first : first + -(-len(codes) // self.block[0])]
        self.kernel(codes, scales, bits, self.block, self.form, self.target)
        if self.target.name == "fp16" and nonfinite(piece, "F16") > nonfinite(raw, self.info.dtype):
            raise FinseekError(_too_large(self.info, self.target))
        return [piece]


def _too_large(info: TensorInfo, target: Target) -> str:
    return f"{info.shard}: {info.name} holds numbers too large for {target.name}; choose bf16 or fp32"


def typed(raw: Bytes, bits: type[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """Bytes as numbers, copied if their address is no multiple of the type's size."""
    if raw.ctypes.data % np.dtype(bits).itemsize:
        raw = raw.copy()
    return raw.view(bits)
