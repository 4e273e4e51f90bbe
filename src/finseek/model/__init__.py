"""DeepSeek-V3 in PyTorch: exact, fast, parallel."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "DeepSeekBlock": "block",
    "DeepSeekConfig": "config",
    "DeepSeekV3": "deepseek",
    "Expert": "experts",
    "MoE": "experts",
    "MultiHeadLatentAttention": "attention",
    "Output": "deepseek",
    "RMSNorm": "norm",
    "RouterMetrics": "insight",
    "add_lora": "lora",
    "flops_per_token": "flops",
    "parameter_counts": "flops",
    "router_metrics": "insight",
    "score_continuations": "scoring",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"finseek.model.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
