"""Plain weights to block FP8, in DeepSeek's layout: what `dequantize` undoes.

Per block: scale_inv = max|w| / largest, code = round(w / scale_inv) to nearest even
(DeepSeek-V3 technical report, arXiv 2412.19437, section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finseek.checkpoint.coverage import DEEPSEEK, check_names
from finseek.checkpoint.fp8 import BY_HEADER, FORMATS, SCALE_SUFFIX, Block, Format, grid, to_float32
from finseek.checkpoint.names import weights_of
from finseek.checkpoint.options import QuantizeOptions
from finseek.checkpoint.shards import ITEMSIZE, Checkpoint, TensorInfo, read_checkpoint
from finseek.checkpoint.stream.direct import Bytes
from finseek.checkpoint.stream.job import Conversion, Job, Step, run, unchanged
from finseek.checkpoint.stream.plan import Out
from finseek.checkpoint.stream.transforms import Look, typed
from finseek.checkpoint.stream.workers import Task
from finseek.core.errors import InputError
from finseek.core.progress import Progress, silent
from finseek.model import DeepSeekConfig

FMT = {"e4m3": "F8_E4M3", "e5m2": "F8_E5M2"}  # `quantization_config.fmt` to the type in a header
SMALLEST = float(np.finfo(np.float32).tiny)


def encode(values: NDArray[np.float32], form: Format) -> NDArray[np.uint8]:
    """The nearest code of each value, ties to even; magnitudes above the largest become the largest."""
    bits = values.view(np.uint32)
    sign = ((bits >> np.uint32(24)) & np.uint32(0x80)).astype(np.uint8)
    magnitude = np.minimum(np.abs(values), np.float32(form.largest))
    # Steps of the format at each magnitude: 2^(exponent - mantissa), the exponent not below that of subnormals and 0.
    lowest = 1 - form.bias
    exponent = np.where(
        magnitude > 0, np.maximum(np.frexp(magnitude)[1] - 1, lowest), lowest
    )  # frexp(0) is no exponent
    step = exponent - form.mantissa
    whole = np.rint(np.ldexp(magnitude, -step)).astype(np.int32)  # exact power of two; rint ties to even
    codes: NDArray[np.uint8] = (whole + ((exponent + form.bias - 1) << form.mantissa)).astype(np.uint8)
    return codes | sign


def quantize_rows(
    values: NDArray[np.float32], block: Block, form: Format
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Codes (M, N) and scales `grid((M, N), block)` of a matrix whose first row begins a block."""
    M, N = values.shape
    rows, columns = grid((M, N), block)
    padded = np.zeros((rows * block[0], columns * block[1]), np.float32)
    padded[:M, :N] = values
    blocks = padded.reshape(rows, block[0], columns, block[1])
    largest = np.abs(blocks).max(axis=(1, 3))
    # A block of zeros keeps scale 1; one whose scale would be subnormal keeps the smallest normal number.
    scales = np.where(largest > 0, np.maximum(largest / np.float32(form.largest), SMALLEST), 1).astype(np.float32)
    codes = encode((blocks / scales[:, None, :, None]).reshape(padded.shape)[:M, :N], form)
    return codes, scales


@dataclass
class Quantize(Look):
    """Two outputs: codes and scales."""

    block: Block
    form: Format

    def __post_init__(self) -> None:
        self.units, self.unit_out = self.info.shape
        self.step, self.unit_in = self.block[0], self.unit_out * ITEMSIZE[self.info.dtype]

    def __call__(self, top: int, raw: Bytes, out: Bytes) -> list[Bytes]:
        """Rows from `top` on, a multiple of the block's height."""
        self.look(top, raw)
        source = BY_HEADER[self.info.dtype]
        values = to_float32(typed(raw, source.bits), source).reshape(-1, self.unit_out)
        codes, scales = quantize_rows(values, self.block, self.form)
        piece = out[: codes.nbytes]
        piece[:] = codes.reshape(-1)
        return [piece, scales.reshape(-1).view(np.uint8)]


def quantize_checkpoint(
    src: str | Path, dst: str | Path, options: QuantizeOptions | None = None, progress: Progress = silent
) -> Conversion:
    """Write a block-FP8 checkpoint: the weights that DeepSeek keeps in FP8 with their scales, all others unchanged.

    Raises:
        InputError: the source is no plain DeepSeek checkpoint, is damaged, or the destination does not do.
        FinseekError: the disk filled up or failed; run again with `resume`.
    """
    options = options or QuantizeOptions()
    return run(quantize_job(read_checkpoint(src), Path(dst), options), progress)


def quantize_job(source: Checkpoint, dst: Path, options: QuantizeOptions) -> Job:
    """The whole conversion, decided from the headers."""
    if source.config.get("model_type") not in DEEPSEEK:
        raise InputError(f"{source.folder}: model_type {source.config.get('model_type')!r} is none of {DEEPSEEK}")
    check_names(source)
    held = [info.name for info in source.tensors.values() if info.dtype in FORMATS]
    if held:
        raise InputError(f"{source.folder}: {held[0]} is FP8 already; dequantize it first")
    chosen = {weight.name for weight in weights_of(DeepSeekConfig.from_dict(source.config)) if weight.row.fp8}
    form, stop = FORMATS[options.format], options.on_nan == "stop"
    steps = [_step(info, info.name in chosen, options.block, form, stop) for info in source.tensors.values()]
    settings = {
        "quant_method": "fp8",
        "fmt": next(fmt for fmt, header in FMT.items() if header == form.name),
        "weight_block_size": list(options.block),
        "activation_scheme": "dynamic",
    }
    return Job(
        kind="quantize",
        source=source,
        folder=dst,
        steps=steps,
        config={**source.config, "quantization_config": settings},
        settings={"quantization_config": settings},
        scan=options.on_nan == "error",
        reserved=0,
        stream=options.stream,
    )


def _step(info: TensorInfo, quantized: bool, block: Block, form: Format, stop: bool) -> Step:
    if not quantized:
        return unchanged(info, stop)
    codes = Out(info.name, form.name, info.shape)
    scales = Out(info.name + SCALE_SUFFIX, "F32", grid(info.shape, block))
    return Step(Task(info, Quantize(info, stop, block, form), 2), (codes, scales))
