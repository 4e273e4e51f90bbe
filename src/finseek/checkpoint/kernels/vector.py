"""Dequantisation compiled by numba: bits into the places of float16, the processor's own conversion, one product.

The same trick as in `bits.py`, in one pass over memory: 1.6 times the cost of a widening copy, where a 256-entry table
for each block, one load a weight, costs 4 times.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.checkpoint.fp8 import Bits, Block, Format, Target


def dequantize(
    codes: NDArray[np.uint8], scales: NDArray[np.float32], out: Bits, block: Block, form: Format, target: Target
) -> None:
    """Write the weights of `codes` into `out` (see the package)."""
    factor = np.float32(1.0 if form.ieee else 256.0)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = scales * factor
    late = bool((np.isinf(scaled) & ~np.isinf(scales)).any())  # then the codes take the factor, in a loop of its own
    run = _compiled(form, target, factor if late else np.float32(1.0))
    run(codes, scales if late else scaled, out, block[0], block[1])


@cache
def _compiled(form: Format, target: Target, factor: np.float32) -> Any:
    import numba
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    word, half, single = ir.IntType(32), ir.HalfType(), ir.FloatType()

    @intrinsic  # type: ignore[untyped-decorator]
    def float16_of_bits(typing: Any, bits: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.fpext(builder.bitcast(args[0], half), single)

        return types.float32(types.uint16), code

    @intrinsic  # type: ignore[untyped-decorator]
    def bits_of_float16(typing: Any, value: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(builder.fptrunc(args[0], half), ir.IntType(16))

        return types.uint16(types.float32), code

    @intrinsic  # type: ignore[untyped-decorator]
    def bits_of_float32(typing: Any, value: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], word)

        return types.uint32(types.float32), code

    @numba.njit  # type: ignore[untyped-decorator]
    def bits_of_bfloat16(value: Any) -> Any:
        bits = bits_of_float32(value)
        return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

    rounded = {"bf16": bits_of_bfloat16, "fp16": bits_of_float16, "fp32": bits_of_float32}[target.name]
    nan_from, nan = np.uint16(form.nonfinite + form.ieee), target.bits(target.nan)
    shift = np.uint16(10 - form.mantissa)

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator]
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
                    value = float16_of_bits(np.uint16(sign | np.uint16(magnitude << shift))) * factor
                    product = value * scale
                    into[c] = nan if (magnitude >= nan_from) | (product != product) else rounded(product)

    return run
