"""Dequantisation compiled by numba: bits into the places of float16, the processor's own conversion, one product.

The same trick as in `bits.py`, in one pass over memory: under twice the cost of a widening copy, where a 256-entry
table for each block, one load a weight, costs four times.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.checkpoint.fp8 import Bits, Block, Format, Target

# `load_kernel` imports this module only where numba is asked for; what numba compiles must stand at the top of a
# module, or its cache on disk cannot know it again, and every run would pay a second for the compiler.
numba: Any = import_module("numba")
ir: Any = import_module("llvmlite.ir")
intrinsic: Any = import_module("numba.extending").intrinsic
BF16, FP16 = 0, 1


@intrinsic  # type: ignore[untyped-decorator]
def float16_of_bits(typing: Any, bits: Any) -> Any:
    """The float32 value of a float16's bits."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return numba.types.float32(numba.types.uint16), code


@intrinsic  # type: ignore[untyped-decorator]
def bits_of_float16(typing: Any, value: Any) -> Any:
    """The bits of a float32 rounded to float16."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return numba.types.uint16(numba.types.float32), code


@intrinsic  # type: ignore[untyped-decorator]
def bits_of_float32(typing: Any, value: Any) -> Any:
    """The bits of a float32."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return numba.types.uint32(numba.types.float32), code


def dequantize(
    codes: NDArray[np.uint8], scales: NDArray[np.float32], out: Bits, block: Block, form: Format, target: Target
) -> None:
    """Write the weights of `codes` into `out` (see the package)."""
    factor = 1.0 if form.ieee else 256.0
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = scales * np.float32(factor)
    late = bool((np.isinf(scaled) & ~np.isinf(scales)).any())  # then the codes take the factor, in a loop of its own
    run = _compiled(form, target, factor if late else 1.0)
    run(codes, scales if late else scaled, out, block[0], block[1])


@cache
def _compiled(form: Format, target: Target, pre_factor: float) -> Any:
    """One loop for each pair of formats: what is constant in it, the compiler folds."""
    nan_from, nan = form.nonfinite + form.ieee, target.nan
    shift, kind = 10 - form.mantissa, {"bf16": BF16, "fp16": FP16}.get(target.name, -1)

    @numba.njit(nogil=True, cache=True)
    def run(codes, scales, out, height, width):  # type: ignore[no-untyped-def]
        for r in range(codes.shape[0]):
            for j in range(scales.shape[1]):
                scale = scales[r // height, j]
                line = codes[r, j * width : (j + 1) * width]
                into = out[r, j * width : (j + 1) * width]
                for c in range(line.shape[0]):
                    code = np.uint16(line[c])
                    magnitude = np.uint16(code & np.uint16(0x7F))
                    sign = np.uint16((code & np.uint16(0x80)) << np.uint16(8))
                    half = np.uint16(sign | np.uint16(magnitude << np.uint16(shift)))
                    product = float16_of_bits(half) * np.float32(pre_factor) * scale
                    if kind == BF16:
                        bits = bits_of_float32(product)
                        word = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
                    elif kind == FP16:
                        word = np.uint32(bits_of_float16(product))
                    else:
                        word = bits_of_float32(product)
                    into[c] = np.uint32(nan) if (magnitude >= np.uint16(nan_from)) | (product != product) else word

    return run
