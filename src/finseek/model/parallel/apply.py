"""Turn a model, made alike in every process, into this process's part of it.

Gradients are *summed* over data-parallel processes. Give `loss_denominator` of the global batch to the forward pass, so
that the sum of the processes' losses is the loss of the whole, whatever the processes' numbers of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

from finseek.core.errors import ConfigError
from finseek.model.attention import MultiHeadLatentAttention
from finseek.model.deepseek import DeepSeekV3
from finseek.model.experts import STACKED, MoE
from finseek.model.parallel.exchange import ExpertExchange
from finseek.model.parallel.layout import Layout, build_mesh, check_layout

# Which linear maps are split over tp, by the end of their name: outputs (heads, widths), then inputs.
TENSOR_PLAN: dict[str, type[ParallelStyle]] = {
    "self_attn.q_proj": ColwiseParallel,
    "self_attn.q_b_proj": ColwiseParallel,
    "self_attn.kv_b_proj": ColwiseParallel,
    "self_attn.o_proj": RowwiseParallel,
    "gate_proj": ColwiseParallel,
    "up_proj": ColwiseParallel,
    "down_proj": RowwiseParallel,
}


@dataclass
class ParallelModel:
    """This process's part of a model.

    Attributes:
        module: call it as the whole model is called, with this process's rows.
        mesh: axes `pp, edp, ep, tp`.
        data: the group that splits the data, edp × ep.
        layout: as asked for.
    """

    module: DeepSeekV3
    mesh: DeviceMesh
    data: ProcessGroup
    layout: Layout

    def sum_gradients(self) -> None:
        """After backward, without FSDP: sum gradients over the processes that hold the same weights."""
        if self.layout.shard:
            return
        for name, parameter in self.module.named_parameters():
            group = self.mesh.get_group("edp") if name.endswith(STACKED) else self.data
            if parameter.grad is not None and dist.get_world_size(group) > 1:
                grad = parameter.grad
                dist.all_reduce(grad.to_local() if isinstance(grad, DTensor) else grad, group=group)

    def update_router_bias(self, gamma: float) -> None:
        """`DeepSeekV3.update_router_bias` with the loads of the whole data-parallel group."""
        for router in self.module.routers().values():
            dist.all_reduce(router.load, group=self.data)
        self.module.update_router_bias(gamma)

    def full_state(self, kind: str = "weights") -> dict[str, Tensor]:
        """All weights, or with kind `gradients` their gradients, whole, in every process of a pipeline stage."""
        found = {}
        for name, parameter in self.module.named_parameters():
            tensor = parameter.detach() if kind == "weights" else parameter.grad
            if tensor is not None:
                tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
                found[name] = self._gather_experts(tensor) if name.endswith(STACKED) else tensor
        if kind == "weights":
            found |= {name: buffer for name, buffer in self.module.named_buffers() if not name.endswith(".load")}
        return found

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the whole model in the Hugging Face layout, from rank 0; all processes take part.

        Raises:
            ConfigError: under pipeline parallelism, where no process sees all layers.
        """
        if self.mesh["pp"].size() > 1:
            raise ConfigError("save_pretrained: pipeline stages hold different layers; save each stage's full_state()")
        state = self.full_state()
        if dist.get_rank() == 0:
            config = self.module.config
            with torch.device("meta"):
                whole = DeepSeekV3(config)
            if config.tie_word_embeddings:
                state["lm_head.weight"] = state["model.embed_tokens.weight"]
            whole.load_state_dict(state, assign=True)
            whole.save_pretrained(folder)
        dist.barrier()

    def traffic(self) -> dict[int, dict[str, float]]:
        """Remote rows, bytes and seconds of the expert exchange so far, by layer."""
        exchanges = {
            layer: block.mlp.experts.exchange for layer, block in enumerate(self.module.model.layers) if block.is_moe
        }
        return {
            layer: {"remote_rows": e.remote_rows, "bytes": e.bytes, "seconds": e.seconds}
            for layer, e in exchanges.items()
            if isinstance(e, ExpertExchange)
        }

    def _gather_experts(self, mine: Tensor) -> Tensor:
        group = self.mesh.get_group("ep")
        parts = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, mine.contiguous(), group=group)
        return torch.cat(parts)


def parallelize(model: DeepSeekV3, layout: Layout, mesh: DeviceMesh | None = None) -> ParallelModel:
    """Split a model by `layout` over the initialised default process group.

    Args:
        model: equal in all processes; changed in place. Pipeline stages are cut beforehand (`pipeline_schedule`).
        layout: sizes.
        mesh: as `build_mesh` gives it; built here where absent.

    Raises:
        ConfigError: the layout does not divide.
    """
    world = dist.get_world_size()
    check_layout(model.config, layout, world)
    device = next(model.parameters()).device.type
    mesh = build_mesh(layout, world, device) if mesh is None else mesh
    data_mesh = mesh["edp", "ep"]._flatten("dp")
    if mesh["tp"].size() > 1:
        split_tensors(model, mesh["tp"])
    if mesh["ep"].size() > 1:
        split_experts(model, mesh.get_group("ep"))
    if layout.shard:
        shard_weights(model, data_mesh, mesh["edp"])
    return ParallelModel(model, mesh, data_mesh.get_group(), layout)


def split_tensors(model: nn.Module, mesh: DeviceMesh) -> None:
    """Tensor parallelism: heads and dense widths over the processes of `mesh`, as DTensors.

    Of an adapter W + B A, A is split with W where that splits the inputs, and B where it splits the outputs.
    """
    plan = {
        name: style()
        for name, module in model.named_modules()
        for end, style in TENSOR_PLAN.items()
        for part in ("", ".base_layer", ".lora_A.default" if style is RowwiseParallel else ".lora_B.default")
        if isinstance(module, nn.Linear) and name.endswith(f".{end}{part}")
    }
    parallelize_module(model, mesh, plan)
    for module in model.modules():
        if isinstance(module, MultiHeadLatentAttention):
            module.share = SumGradient(mesh.get_group())


class SumGradient(nn.Module):
    """The identity, whose gradient is summed over the processes."""

    def __init__(self, group: ProcessGroup) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """The same x."""
        return _SumGradient.apply(x, self.group)


class _SumGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None


@torch.no_grad()
def split_experts(model: nn.Module, group: ProcessGroup) -> None:
    """Expert parallelism: keep the experts [r·E/P, (r+1)·E/P) of each mixture, and reach the others by all-to-all."""
    P, rank = dist.get_world_size(group), dist.get_rank(group)
    for module in model.modules():
        if isinstance(module, MoE):
            experts = module.experts
            for name in ("gate_up_proj", "down_proj"):
                whole = getattr(experts, name)
                setattr(experts, name, nn.Parameter(whole.chunk(P)[rank].clone(), whole.requires_grad))
            experts.exchange = ExpertExchange(group)


def shard_weights(model: nn.Module, data: DeviceMesh, expert_data: DeviceMesh) -> None:
    """FSDP2: each block a unit over `data`, its routed experts one over `expert_data`; gradients are summed."""
    units = [model]
    for block in model.model.layers:
        if block.is_moe:
            fully_shard(block.mlp.experts, mesh=expert_data)
            units.append(block.mlp.experts)
        if next(block.parameters(), None) is not None:
            fully_shard(block, mesh=data)
            units.append(block)
    fully_shard(model, mesh=data)
    for unit in units:
        assert isinstance(unit, FSDPModule)
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
