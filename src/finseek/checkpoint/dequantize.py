"""Block FP8 to BF16, FP16 or FP32, as a stream: the memory of a laptop for 671 billion weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finseek.checkpoint.coverage import check_names, mtp_tensors
from finseek.checkpoint.fp8 import BY_HEADER, FORMATS, SCALE_SUFFIX, TARGETS, Target
from finseek.checkpoint.kernels import load_kernel
from finseek.checkpoint.options import DequantizeOptions
from finseek.checkpoint.scales import read_quantization, read_scales
from finseek.checkpoint.shards import Checkpoint, TensorInfo, read_checkpoint
from finseek.checkpoint.stream.job import Conversion, Job, Step, run
from finseek.checkpoint.stream.plan import Out
from finseek.checkpoint.stream.transforms import Cast, Copy, Dequantize, Look
from finseek.checkpoint.stream.workers import Task
from finseek.core.progress import Progress, silent


def dequantize_checkpoint(
    src: str | Path, dst: str | Path, options: DequantizeOptions | None = None, progress: Progress = silent
) -> Conversion:
    """Convert a block-FP8 checkpoint; each weight is the float32 product of code and scale, rounded once to even.

    A checkpoint without FP8 is only cast. F32 tensors stay F32 (the router's bias must), BF16 and F16 become
    `options.dtype`. Anonymous memory is bounded by `options.stream.memory` whatever the sizes of shards.

    Raises:
        InputError: the source is incomplete or damaged, or the destination does not do; nothing was written.
        FinseekError: the disk filled up or failed; run again with `resume`.
    """
    options = options or DequantizeOptions()
    source = read_checkpoint(src)
    job = dequantize_job(source, Path(dst), options)
    return run(job, progress)


def dequantize_job(source: Checkpoint, dst: Path, options: DequantizeOptions) -> Job:
    """The whole conversion, decided from the headers and the scales."""
    quantization = read_quantization(source)
    dropped = mtp_tensors(source) if options.mtp == "drop" else set()
    check_names(source)
    scales = read_scales(source, quantization)
    kernel = load_kernel(options.stream.kernel, options.stream.device) if scales else None
    target, stop = TARGETS[options.dtype], options.on_nan == "stop"
    spent = {name + SCALE_SUFFIX for name in scales}
    steps = []
    for info in source.tensors.values():
        if info.name in dropped or info.name in spent:
            continue
        rule: Look
        if info.dtype in FORMATS:
            assert kernel is not None
            rule = Dequantize(info, stop, scales[info.name], quantization.block, target, kernel)
        elif info.dtype in ("BF16", "F16") and info.dtype != target.header:
            rule = Cast(info, stop, target)
        else:
            rule = Copy(info, stop)
        out = Out(info.name, new_dtype(info, target), info.shape)
        steps.append(Step(Task(info, rule, 1), (out,)))
    return Job(
        kind="dequantize",
        source=source,
        folder=dst,
        steps=steps,
        config=new_config(source.config, target, bool(dropped)),
        settings={"dtype": options.dtype, "mtp": options.mtp, "nan": "keep" if options.on_nan == "keep" else "refuse"},
        scan=options.on_nan == "error",
        reserved=sum(scale.nbytes for scale in scales.values()),
        stream=options.stream,
    )


def new_dtype(info: TensorInfo, target: Target) -> str:
    """The header's type of a tensor after the conversion."""
    return target.header if info.dtype in FORMATS or info.dtype in BY_HEADER.keys() - {"F32"} else info.dtype


def new_config(config: dict[str, Any], target: Target, mtp_dropped: bool) -> dict[str, Any]:
    """`config.json` of plain weights."""
    if not config:
        return {}
    new = {key: value for key, value in config.items() if key != "quantization_config"}
    keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["torch_dtype"]
    new |= dict.fromkeys(keys, target.torch)
    if mtp_dropped:
        new |= {key: 0 for key in ("num_nextn_predict_layers", "num_mtp_layers") if key in config}
    return new
