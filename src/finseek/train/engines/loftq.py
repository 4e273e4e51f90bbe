"""LoftQ (arXiv 2310.08659): adapters that start at the best low-rank part of what the quantisation lost.

r rank   W (out, in) the whole weight   Q its 4-bit form   s the scale of the adapter
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from finseek.core.errors import InputError

PREFIX = "base_model.model."


@torch.no_grad()  # type: ignore[untyped-decorator]
def start_at_what_was_lost(adapted: Any, folder: Path) -> None:
    """Set B A = best rank-r approximation of (W − Q) / s in every adapter beside a 4-bit matrix.

    PEFT's own form (0.21) leaves s out, so that it is right for alpha = rank alone, and wants a GPU.

    Args:
        adapted: PEFT's model with bitsandbytes' 4-bit matrices.
        folder: checkpoint with the whole weights.

    Raises:
        InputError: the checkpoint lacks a weight.
    """
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora.bnb import Linear4bit

    weights = _Weights(folder)
    for name, module in adapted.named_modules():
        if isinstance(module, Linear4bit):
            quantized, scale = module.base_layer.weight, module.scaling["default"]
            W = weights[name.removeprefix(PREFIX) + ".weight"].to(quantized.device, torch.float32)
            Q = dequantize_4bit(quantized.data, quantized.quant_state).float()
            U, S, Vh = torch.linalg.svd((W - Q) / scale, full_matrices=False)
            r = module.r["default"]
            module.lora_A["default"].weight.copy_(S[:r, None].sqrt() * Vh[:r])
            module.lora_B["default"].weight.copy_(U[:, :r] * S[:r].sqrt())


class _Weights:
    """Tensors of a checkpoint in one file or in shards, read when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = folder / "model.safetensors.index.json"
        self.files = json.loads(index.read_bytes())["weight_map"] if index.is_file() else {}

    def __getitem__(self, name: str) -> Tensor:
        file = self.folder / self.files.get(name, "model.safetensors")
        try:
            with safe_open(file, "pt") as tensors:
                found: Tensor = tensors.get_tensor(name)
                return found
        except Exception as error:  # the library raises its own, which is no subclass of OSError
            raise InputError(f"lora.loftq: {file} gives no {name} ({error}): set lora.loftq to false") from None
