"""Dequantisation with torch alone: move the bits of FP8 into the places of float16, and let float16 do the decoding.

An e5m2 number is the upper byte of a float16. An e4m3 number, shifted by 7 with the sign back on top, is a float16
whose exponent is 8 too small (biases 7 and 15): a factor of 256, exact, subnormals included, that moves into the scale.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from finseek.checkpoint.fp8 import Bits, Block, Format, Target, count_nonfinite

STRIP = 128  # rows at a time: fewer make the calls cost more than the work, more leave the caches
KEEP_SIGN = -0x4001  # int16 0xBFFF: clears the copy of the sign that the shift leaves in bit 14


def dequantize(
    codes: NDArray[np.uint8], scales: NDArray[np.float32], out: Bits, block: Block, form: Format, target: Target
) -> None:
    """Write the weights of `codes` into `out` (see the package)."""
    (M, N), (height, width) = codes.shape, block
    signed, grid = torch.from_numpy(codes).view(torch.int8), torch.from_numpy(scales)
    held = torch.from_numpy(out.view(np.int16 if target.itemsize == 2 else np.int32)).view(getattr(torch, target.torch))
    shift, factor = (8, 1.0) if form.ieee else (7, 256.0)
    scaled = grid * factor
    # Scales above 2^119 would overflow by the factor; then the codes take it, in a pass of its own.
    late = bool((torch.isinf(scaled) & ~torch.isinf(grid)).any())
    scaled = grid if late else scaled
    indefinite = not (np.isfinite(scales).all() and (scales != 0).all())  # infinity times zero may come up
    half = torch.empty((STRIP, N), dtype=torch.int16)
    single = torch.empty((STRIP, N), dtype=torch.float32)
    whole = N // width * width  # columns of whole blocks; the rest is ragged
    for block_row in range(scales.shape[0]):
        end = min((block_row + 1) * height, M)
        for top in range(block_row * height, end, STRIP):
            strip = slice(top, min(top + STRIP, end))
            h, f = half[: strip.stop - top], single[: strip.stop - top]
            h.copy_(signed[strip]).mul_(1 << shift)  # a shift, but vectorised
            if not form.ieee:
                h.bitwise_and_(KEEP_SIGN)
            f.copy_(h.view(torch.float16))
            if late:
                f.mul_(factor)
            f[:, :whole].unflatten(1, (N // width, width)).mul_(
                scaled[block_row, : N // width, None]
            )  # one scale a block
            f[:, whole:].mul_(scaled[block_row, -1])
            held[strip].copy_(f)
            # What float16 cannot know: the NaN codes of e4m3fn decode to 480, and the sign of a NaN means nothing here.
            if indefinite:
                out[strip][torch.isnan(f).numpy()] = target.nan
            if count_nonfinite(codes[strip], form):
                out[strip][(codes[strip] & np.uint8(0x7F)) >= form.nonfinite + form.ieee] = target.nan
