"""Block-wise FP8: number formats, scale grids, and the one rounding.

    weight[r, c] = round(decode(code[r, c]) * scale_inv[r // R, c // C])

with blocks of R x C (ragged at the right and lower edges), the product in float32 and one rounding to nearest even.
A NaN comes out as the canonical quiet NaN of the target, whatever the sign of its code, so that kernels agree bit for
bit. (OCP 8-bit floating point specification 1.0; DeepSeek-V3 technical report, arXiv 2412.19437, section 3.3.)

Everything here and in `kernels` works on bit patterns in numpy arrays: uint8 codes in, uint16 or uint32 out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.unsignedinteger]
Block = tuple[int, int]
SCALE_SUFFIX = "_scale_inv"


@dataclass(frozen=True)
class Format:
    """An 8-bit float format.

    Attributes:
        name: its name in a safetensors header.
        mantissa: bits of the mantissa.
        bias: of the exponent.
        largest: the largest finite value.
        nonfinite: the smallest magnitude code (7 bits) that is NaN or infinite.
        ieee: whether the largest exponent is kept for infinities and NaN (e5m2), or its last code for NaN (e4m3fn).
    """

    name: str
    mantissa: int
    bias: int
    largest: float
    nonfinite: int
    ieee: bool

    def values(self) -> NDArray[np.float32]:
        """The float32 value of each of the 256 codes."""
        codes = np.arange(256)
        steps = 1 << self.mantissa
        exponent, fraction = (codes & 0x7F) // steps, (codes & 0x7F) % steps
        normal = np.where(exponent > 0, 1.0, 0.0) + fraction / steps
        magnitude = np.ldexp(normal, np.maximum(exponent, 1) - self.bias)
        magnitude[(codes & 0x7F) >= self.nonfinite] = np.nan
        if self.ieee:
            magnitude[(codes & 0x7F) == self.nonfinite] = np.inf
        signed: NDArray[np.float32] = np.where(codes & 0x80, -magnitude, magnitude).astype(np.float32)
        return signed


@dataclass(frozen=True)
class Target:
    """A number format that weights are converted to.

    Attributes:
        name: as in `--dtype`.
        header: its name in a safetensors header.
        torch: its name in `config.json`.
        bits: the numpy type that holds its bit patterns.
        nan: the canonical NaN.
    """

    name: str
    header: str
    torch: str
    bits: type[np.unsignedinteger]
    nan: int

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return np.dtype(self.bits).itemsize


FORMATS = {
    "F8_E4M3": Format("F8_E4M3", mantissa=3, bias=7, largest=448.0, nonfinite=0x7F, ieee=False),
    "F8_E5M2": Format("F8_E5M2", mantissa=2, bias=15, largest=57344.0, nonfinite=0x7C, ieee=True),
}
TARGETS = {
    "bf16": Target("bf16", "BF16", "bfloat16", np.uint16, 0x7FC0),
    "fp16": Target("fp16", "F16", "float16", np.uint16, 0x7E00),
    "fp32": Target("fp32", "F32", "float32", np.uint32, 0x7FC00000),
}
BY_HEADER = {target.header: target for target in TARGETS.values()}


def grid(shape: tuple[int, ...], block: Block) -> tuple[int, int]:
    """Rows and columns of the scales of a matrix: one for each block, ragged ones included."""
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])


def count_nonfinite(codes: NDArray[np.uint8], form: Format) -> int:
    """How many codes are NaN or infinite."""
    if not codes.size or (codes.max() < 0x80 + form.nonfinite and codes.view(np.int8).max() < form.nonfinite):
        return 0
    return int(np.count_nonzero((codes & np.uint8(0x7F)) >= form.nonfinite))


def to_bits(values: NDArray[np.float32], target: Target) -> Bits:
    """Round float32 to nearest even, as bit patterns of `target`; any NaN becomes the canonical one."""
    bits: Bits
    if target.name == "bf16":
        word = values.view(np.uint32)
        bits = ((word + (np.uint32(0x7FFF) + ((word >> 16) & np.uint32(1)))) >> 16).astype(np.uint16)
    elif target.name == "fp16":
        with np.errstate(over="ignore", invalid="ignore"):
            bits = values.astype(np.float16).view(np.uint16)
    else:
        bits = values.view(np.uint32).copy()
    bits[np.isnan(values)] = target.nan
    return bits


def to_float32(bits: Bits, target: Target) -> NDArray[np.float32]:
    """The values of bit patterns; exact."""
    if target.name == "bf16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return bits.view(np.float16).astype(np.float32) if target.name == "fp16" else bits.view(np.float32)
