"""Checkpoints: inspect, convert between FP8 and BF16 as a stream, rename, move to and from NeMo."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Conversion": "stream.job",
    "DequantizeOptions": "options",
    "Inspection": "inspect",
    "QuantizeOptions": "options",
    "StreamOptions": "options",
    "Verification": "verify",
    "NemoOptions": "nemo",
    "dequantize_checkpoint": "dequantize",
    "export_hf": "export",
    "import_automodel": "nemo",
    "inspect_checkpoint": "inspect",
    "quantize_checkpoint": "quantize",
    "verify_checkpoint": "verify",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"finseek.checkpoint.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
