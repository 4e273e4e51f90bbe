"""LoftQ (arXiv 2310.08659): adapters that start at the best low-rank part of what the quantisation lost.

r rank   W (out, in) the whole weight   Q its 4-bit form   s the scale of the adapter
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finseek.core.errors import InputError
from finseek.model.state_dict import Shards

PREFIX = "base_model.model."


@torch.no_grad()
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

    weights = Shards(folder)
    for name, module in adapted.named_modules():
        if isinstance(module, Linear4bit):
            quantized, scale = module.base_layer.weight, module.scaling["default"]
            W = _whole(weights, f"{name.removeprefix(PREFIX)}.weight", folder).to(quantized.device, torch.float32)
            Q = dequantize_4bit(quantized.data, quantized.quant_state).float()
            U, S, Vh = torch.linalg.svd((W - Q) / scale, full_matrices=False)
            r = module.r["default"]
            module.lora_A["default"].weight.copy_(S[:r, None].sqrt() * Vh[:r])
            module.lora_B["default"].weight.copy_(U[:, :r] * S[:r].sqrt())


def _whole(weights: Shards, name: str, folder: Path) -> Tensor:
    if name not in weights.file_of:
        raise InputError(f"lora.loftq: {folder} holds no {name}: set lora.loftq to false")
    return weights[name]
