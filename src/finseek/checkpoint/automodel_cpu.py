"""The few places where NeMo AutoModel 0.7 takes a GPU for granted, answered for a machine without one.

Two of its modules ask `torch` for the current CUDA device while a model is built. Where there is no CUDA, and only
there, each gets a stand-in for `torch` in its own namespace, whose `device("cuda…")` is the CPU; all else is torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

ASK_FOR_CUDA = ("nemo_automodel._transformers.auto_model", "nemo_automodel.components.models.deepseek_v3.model")


class _Cuda:
    """`torch.cuda` with the CPU as its current device."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def current_device(self) -> str:
        """The device that tensors go to."""
        return "cpu"

    def reset_peak_memory_stats(self, *_: Any) -> None:
        """There are none."""


class _Device(type):
    """Makes `isinstance(x, torch.device)` hold for real devices."""

    def __instancecheck__(cls, value: object) -> bool:
        import torch

        return isinstance(value, torch.device)


class _Torch:
    """`torch`, but for `device` and `cuda`."""

    def __init__(self, real: Any) -> None:
        class Device(metaclass=_Device):
            def __new__(cls, kind: Any = "cpu", *_: Any) -> Any:
                return real.device("cpu" if str(kind).startswith("cuda") else kind)

        self._real, self.cuda, self.device = real, _Cuda(real.cuda), Device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def patch_automodel_without_cuda(*more: str) -> bool:
    """Patch AutoModel's modules, and `more` of them, in this process if there is no CUDA; whether it was needed."""
    import torch

    if torch.cuda.is_available():
        return False
    for name in (*ASK_FOR_CUDA, *more):
        module: Any = import_module(name)
        if module.torch is torch:
            module.torch = _Torch(torch)
    return True
