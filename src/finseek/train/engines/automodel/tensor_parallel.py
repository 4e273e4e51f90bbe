"""The tensor-parallel plan for DeepSeek-V3 that AutoModel 0.7 has not: heads and hidden units are shared.

Embedding, head, norms and the small projections into the latents stay whole on every process; routed experts belong to
expert parallelism. AutoModel's attention reads its number of heads from itself and splits one projection into what
column-parallel layers share (the latent) and what each process uses for its own heads alone (the rotary key), hence two
styles of our own. It is the plan of :mod:`finseek.model.parallel` in AutoModel's names.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from nemo_automodel.components.distributed.optimized_tp_plans import PARALLELIZE_FUNCTIONS
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel

from finseek.model.parallel.apply import SumGradient


class OwnHeads(ParallelStyle):
    """The attention of this process has its share of the heads."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        module.n_heads = module.n_heads // device_mesh.size()
        return module


class SharedRotaryKey(ParallelStyle):
    """The projection into latent and rotary key is whole everywhere; the key's gradient is summed over the heads.

    Args:
        latent: width of the latent, whose gradient the column-parallel projection sums already.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        share = SumGradient(device_mesh.get_group())

        def share_key(_: nn.Module, inputs: object, output: Tensor) -> Tensor:
            latent, key = output.split([self.latent, output.shape[-1] - self.latent], dim=-1)
            return torch.cat([latent, share(key)], dim=-1)

        module.register_forward_hook(share_key)
        return module


def plan(model: nn.Module, sequence_parallel: bool = False) -> dict[str, ParallelStyle]:
    """Module patterns to styles, of those that the model has.

    Args:
        model: AutoModel's DeepseekV3ForCausalLM, or a stage of it.
        sequence_parallel: refused by AutoModel for routed experts.
    """
    styles: dict[str, Any] = {
        "model.layers.*.self_attn": OwnHeads,
        "model.layers.*.self_attn.q_proj": ColwiseParallel,
        "model.layers.*.self_attn.q_b_proj": ColwiseParallel,
        "model.layers.*.self_attn.kv_a_proj_with_mqa": partial(SharedRotaryKey, model.config.kv_lora_rank),
        "model.layers.*.self_attn.kv_b_proj": ColwiseParallel,
        "model.layers.*.self_attn.o_proj": RowwiseParallel,
        "model.layers.*.mlp.gate_proj": ColwiseParallel,
        "model.layers.*.mlp.up_proj": ColwiseParallel,
        "model.layers.*.mlp.down_proj": RowwiseParallel,
        "model.layers.*.mlp.shared_experts.gate_proj": ColwiseParallel,
        "model.layers.*.mlp.shared_experts.up_proj": ColwiseParallel,
        "model.layers.*.mlp.shared_experts.down_proj": RowwiseParallel,
    }
    names = [name for name, _ in model.named_modules()]
    return {key: style() for key, style in styles.items() if any(fnmatchcase(name, key) for name in names)}


def register() -> None:
    """Make AutoModel use the plan."""
    PARALLELIZE_FUNCTIONS["nemo_automodel.components.models.deepseek_v3.model.DeepseekV3ForCausalLM"] = plan
