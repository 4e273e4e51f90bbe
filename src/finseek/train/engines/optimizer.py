"""The optimiser of every engine whose loop is ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from finseek.train.options import TrainOptions


def adamw(model: nn.Module, options: TrainOptions) -> torch.optim.AdamW:
    """AdamW on the trainable parameters; matrices decay, vectors do not.

    Parameters that are laid over processes in one way form a group: a fused step takes no mixture.
    """
    groups: dict[tuple[bool, str], list[Tensor]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            layout = str(parameter.device_mesh) if isinstance(parameter, DTensor) else ""
            groups.setdefault((parameter.dim() > 1, layout), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": params, "weight_decay": options.weight_decay if matrices else 0.0}
            for (matrices, _), params in sorted(groups.items(), key=lambda item: (not item[0][0], item[0][1]))
        ],
        lr=options.learning_rate,
        betas=options.betas,
    )
