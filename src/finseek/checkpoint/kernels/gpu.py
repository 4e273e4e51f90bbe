"""Dequantisation on a GPU, in Triton: one program a block of the weight, so one scale a program."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from finseek.checkpoint.fp8 import Bits, Block, Format, Target


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    codes, scales, out, M, N, grid_n, nan_from, MANTISSA: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    i, j = tl.program_id(0), tl.program_id(1)
    parts: tl.constexpr = (HEIGHT + ROWS - 1) // ROWS
    in_block = (i % parts) * ROWS + tl.arange(0, ROWS)
    r = (i // parts) * HEIGHT + in_block
    c = j * WIDTH + tl.arange(0, COLUMNS)
    inside = ((in_block < HEIGHT) & (r < M))[:, None] & ((tl.arange(0, COLUMNS) < WIDTH) & (c < N))[None, :]
    place = r.to(tl.int64)[:, None] * N + c[None, :]
    scale = tl.load(scales + (i // parts) * grid_n + j)
    code = tl.load(codes + place, mask=inside, other=0).to(tl.int32)
    # The bits of FP8 in the places of float16, as in `bits.py`; float16 subnormals convert exactly, unlike float32's.
    half = (((code & 0x80) << 8) | ((code & 0x7F) << (10 - MANTISSA))).to(tl.int16).to(tl.float16, bitcast=True)
    value = half.to(tl.float32)
    if MANTISSA == 3:
        value = value * 256.0
    value = tl.where((code & 0x7F) >= nan_from, float("nan"), value * scale)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)


def dequantize_tensor(
    codes: torch.Tensor, scales: torch.Tensor, out: torch.Tensor, block: Block, form: Format
) -> torch.Tensor:
    """Codes uint8 (M, N) and scales float32 into `out` (M, N) of a float type, all contiguous and on one device."""
    M, N = codes.shape
    rows = min(32, triton.next_power_of_2(block[0]))
    parts = triton.cdiv(block[0], rows)
    programs = (scales.shape[0] * parts, scales.shape[1])
    columns = triton.next_power_of_2(block[1])
    nan_from = form.nonfinite + form.ieee
    kernel: Any = _kernel[programs]
    kernel(codes, scales, out, M, N, scales.shape[1], nan_from, form.mantissa, block[0], block[1], rows, columns)
    return out


def dequantize(
    codes: NDArray[np.uint8],
    scales: NDArray[np.float32],
    out: Bits,
    block: Block,
    form: Format,
    target: Target,
    device: int = 0,
) -> None:
    """Write the weights of `codes` into `out` by way of a CUDA device (see the package)."""
    with torch.cuda.device(device):
        held = torch.empty(codes.shape, dtype=getattr(torch, target.torch), device="cuda")
        dequantize_tensor(torch.from_numpy(codes).cuda(), torch.from_numpy(scales).cuda(), held, block, form)
        as_int, numpy_int = (torch.int16, np.int16) if target.itemsize == 2 else (torch.int32, np.int32)
        torch.from_numpy(out.view(numpy_int)).copy_(held.view(as_int))
        nan = torch.isnan(held)
        if bool(nan.any()):
            out[nan.cpu().numpy()] = target.nan
