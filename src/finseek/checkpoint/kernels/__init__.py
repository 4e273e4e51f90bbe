"""Three kernels that turn FP8 codes and block scales into weights, equal to the bit.

Each is a module with `dequantize(codes, scales, out, block, form, target)`: codes uint8 (M, N), scales float32
`grid((M, N), block)`, out uint16 or uint32 (M, N) of bit patterns, written in place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finseek.checkpoint.fp8 import Bits, Block, Format, Target
from finseek.core.errors import InputError, MissingPart

Kernel = Callable[[NDArray[np.uint8], NDArray[np.float32], Bits, Block, Format, Target], None]

# name: (module of this package, what it needs, the extra that brings it)
KERNELS = {
    "numba": ("vector", "numba", "speed"),
    "torch": ("bits", "torch", "train"),
    "triton": ("gpu", "triton", "train"),
}


def load_kernel(name: str = "auto", device: int = 0) -> Kernel:
    """A kernel by name; "auto" is the numba one where numba is installed, else the torch bit trick.

    `device` is the GPU of the Triton kernel: given, not the thread's current one, which workers do not inherit.

    Raises:
        InputError: unknown name, or no such GPU.
        MissingPart: what the kernel needs is not installed.
    """
    if name == "auto":
        name = "numba" if find_spec("numba") else "torch"
    if name not in KERNELS:
        raise InputError(f"kernel {name!r} is none of auto, {', '.join(KERNELS)}")
    module, needs, extra = KERNELS[name]
    if find_spec(needs) is None:
        raise MissingPart(needs, extra, f"the {name} kernel")
    if name == "triton":
        _check_gpu(device)
    kernel: Any = import_module(f"finseek.checkpoint.kernels.{module}").dequantize
    return partial(kernel, device=device) if name == "triton" else kernel


def _check_gpu(device: int) -> None:
    import torch

    count = torch.cuda.device_count()
    if device >= count:
        raise InputError(f"the triton kernel needs GPU {device}, and torch finds {count}: use kernel numba or torch")
