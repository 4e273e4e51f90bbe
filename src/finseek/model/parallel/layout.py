"""How processes are arranged, and whether a model divides over them.

A process has four coordinates, the last varying fastest:

    pp   pipeline stage                  holds a run of layers
    edp  expert data parallel            copies of the same experts
    ep   expert parallel                 owns experts [ep·E/P, (ep+1)·E/P)
    tp   tensor parallel                 holds a part of the heads and of the dense widths

Data are split over edp × ep, which together are the data-parallel group of everything but the routed experts.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from finseek.core.errors import ConfigError
from finseek.model.config import DeepSeekConfig

AXES = ("pp", "edp", "ep", "tp")


@dataclass(frozen=True)
class Layout:
    """Sizes of the parallel axes; what remains of the processes is data parallel.

    Attributes:
        tensor_model_parallel_size: processes that share each layer's heads and dense widths.
        pipeline_model_parallel_size: stages of layers.
        expert_model_parallel_size: processes that share the routed experts; they lie within data parallelism.
        shard: split weights, gradients and optimiser state over the data-parallel group (FSDP2).
    """

    tensor_model_parallel_size: int = 1
    pipeline_model_parallel_size: int = 1
    expert_model_parallel_size: int = 1
    shard: bool = True

    def data_parallel_size(self, world_size: int) -> int:
        """Processes that see different data."""
        return world_size // (self.tensor_model_parallel_size * self.pipeline_model_parallel_size)


def check_layout(config: DeepSeekConfig, layout: Layout, world_size: int) -> None:
    """Refuse a layout that does not divide.

    Raises:
        ConfigError: with the arithmetic.
    """
    tp, pp = layout.tensor_model_parallel_size, layout.pipeline_model_parallel_size
    ep = layout.expert_model_parallel_size
    if min(tp, pp, ep) < 1:
        raise ConfigError(f"parallel sizes must be at least 1: TP {tp}, PP {pp}, EP {ep}")
    dp = layout.data_parallel_size(world_size)
    rules = [
        (
            dp * tp * pp == world_size,
            f"{world_size} processes are not a multiple of TP {tp} × PP {pp} = {tp * pp}; "
            f"use {tp * pp * max(1, dp)} processes or smaller sizes",
        ),
        (
            dp % ep == 0,
            f"expert_model_parallel_size {ep} must divide the data-parallel size "
            f"{world_size} / (TP {tp} × PP {pp}) = {dp}",
        ),
        (
            not config.is_moe or config.n_routed_experts % ep == 0,
            f"expert_model_parallel_size {ep} must divide the {config.n_routed_experts} routed experts",
        ),
        (
            pp <= config.num_hidden_layers,
            f"pipeline_model_parallel_size {pp} exceeds the {config.num_hidden_layers} layers",
        ),
        (
            pp == 1 or (config.num_nextn_predict_layers == 0 and config.aux_loss_alpha == 0),
            f"pipeline parallelism (PP {pp}) has no MTP and no balance loss: set num_nextn_predict_layers and "
            "aux_loss_alpha to 0; the router bias balances the load",
        ),
        (pp == 1 or not config.tie_word_embeddings, f"tied embeddings lie in two stages of PP {pp}: untie them"),
    ]
    for holds, message in rules:
        if not holds:
            raise ConfigError(message)
    check_tensor_parallel(config, tp)


def check_tensor_parallel(config: DeepSeekConfig, size: int) -> None:
    """Refuse a number of processes that does not divide what tensor parallelism shares.

    Raises:
        ConfigError: with the width.
    """
    widths = {
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "n_shared_experts × moe_intermediate_size": config.n_shared_experts * config.moe_intermediate_size,
    }
    for name, width in widths.items():
        if width % size:
            raise ConfigError(f"tensor_model_parallel_size {size} must divide {name} {width}")


def build_mesh(layout: Layout, world_size: int, device_type: str) -> DeviceMesh:
    """The mesh of axes `pp, edp, ep, tp`; needs an initialised process group of `world_size`."""
    ep, dp = layout.expert_model_parallel_size, layout.data_parallel_size(world_size)
    shape = (layout.pipeline_model_parallel_size, dp // ep, ep, layout.tensor_model_parallel_size)
    return init_device_mesh(device_type, shape, mesh_dim_names=AXES)
