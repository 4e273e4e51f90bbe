"""This process among those of a job: which part of the model it holds, and what all of them sum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from finseek.core.errors import ConfigError
from finseek.model import DeepSeekV3
from finseek.model.experts import STACKED
from finseek.model.parallel import Layout, ParallelModel, build_mesh, check_layout, parallelize
from finseek.train.options import ParallelOptions


def layout_of(parallel: ParallelOptions) -> Layout:
    """The layout that the config section `parallel` asks for."""
    tp, pp = parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size
    several = parallel.world_size // (tp * pp) > 1
    return Layout(tp, pp, parallel.expert_model_parallel_size, shard=several and parallel.sharding == "fsdp")


@dataclass
class Place:
    """One process's part of a model; alone, the whole of it.

    Attributes:
        model: the part.
        mesh: axes ``pp, edp, ep, tp``; None alone.
        part: the split model; None alone, and until a pipeline has been cut.
    """

    model: DeepSeekV3
    mesh: DeviceMesh | None = None
    layout: Layout = field(default_factory=Layout)
    part: ParallelModel | None = None

    @classmethod
    def of(cls, model: DeepSeekV3, parallel: ParallelOptions) -> Place:
        """Split a model, equal in all processes, over the process group that is open; a pipeline is cut later.

        Raises:
            ConfigError: if the layout does not divide.
        """
        if not dist.is_initialized():
            return cls(model)
        layout, world, config = layout_of(parallel), dist.get_world_size(), model.config
        if layout.pipeline_model_parallel_size > 1 and (config.aux_loss_alpha or config.num_nextn_predict_layers):
            raise ConfigError(
                "parallel.pipeline_model_parallel_size: a pipeline has no balance loss and no multi-token prediction:"
                " set train.balance_loss to 0 and num_nextn_predict_layers to 0; the router bias balances the load"
            )
        check_layout(config, layout, world)
        place = cls(model, build_mesh(layout, world, next(model.parameters()).device.type), layout)
        if layout.pipeline_model_parallel_size == 1:
            place.split(model)
        return place

    def split(self, model: DeepSeekV3) -> None:
        """Split what this process holds, a whole model or a stage of it."""
        self.part = parallelize(model, self.layout, self.mesh)

    @property
    def rank(self) -> int:
        """0 for the process that writes."""
        return dist.get_rank() if self.mesh else 0

    @property
    def world(self) -> int:
        """Number of processes."""
        return dist.get_world_size() if self.mesh else 1

    @property
    def replica(self) -> int:
        """Which part of the data this process sees."""
        if self.mesh is None:
            return 0
        _, edp, ep, _ = self.mesh.get_coordinate() or (0, 0, 0, 0)
        return int(edp * self.mesh.shape[2] + ep)

    @property
    def replicas(self) -> int:
        """How many parts there are."""
        return int(self.mesh.shape[1] * self.mesh.shape[2]) if self.mesh else 1

    def sum(self, values: Tensor) -> Tensor:
        """Sums over replicas and stages of what is alike in tensor-parallel processes, in place."""
        if self.mesh:
            dist.all_reduce(values)
            values /= self.mesh.shape[3]
        return values

    def sum_loads(self) -> Tensor:
        """Give every router the load of the whole batch; returns that of all layers, (layers, E), 0 without."""
        routers, config = self.model.routers(), self.model.config
        layers = config.num_hidden_layers + config.num_nextn_predict_layers
        device = next(self.model.parameters()).device
        loads = torch.zeros(layers, config.n_routed_experts, device=device)
        for layer, router in routers.items():
            loads[layer] = router.load
        self.sum(loads)
        for layer, router in routers.items():
            router.load.copy_(loads[layer])
        return loads

    def clip_gradients(self, limit: float) -> Tensor:
        """Scale all gradients so that their norm, over all processes, is at most ``limit``; returns the norm."""
        if self.part is None:
            return torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.part.sum_gradients()
        gradients = [(name, p, local(p.grad)) for name, p in self.model.named_parameters() if p.grad is not None]
        device = next(self.model.parameters()).device
        square = torch.zeros((), dtype=torch.float64, device=device)
        for name, parameter, gradient in gradients:
            square += gradient.double().square().sum() / self._copies(name, parameter)
        dist.all_reduce(square)
        norm = square.sqrt()
        for _, _, gradient in gradients:
            gradient.mul_((limit / (norm + 1e-6)).clamp(max=1.0).to(gradient.dtype))
        return norm

    def _copies(self, name: str, parameter: Tensor) -> int:
        """Processes that hold the same numbers of a parameter."""
        assert self.mesh is not None
        pp, _, ep, _ = self.mesh.shape
        shards = pp * (ep if name.endswith(STACKED) else 1)
        if isinstance(parameter, DTensor):
            split = zip(parameter.device_mesh.shape, parameter.placements, strict=True)
            shards *= prod(size for size, placement in split if placement.is_shard())
        return self.world // int(shards)

    def held(self) -> dict[str, Tensor]:
        """What training changes of this process's part, as plain tensors that share its memory."""
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # the root keeps whole weights after a pass without gradients
        parameters = dict(self.model.named_parameters())
        buffers = {name: each for name, each in self.model.named_buffers() if not name.endswith(".load")}
        return {name: local(p) for name, p in parameters.items() if p.requires_grad} | buffers

    @torch.no_grad()
    def fill(self, values: dict[str, Tensor]) -> None:
        """Replace what :meth:`held` gives by other values."""
        for name, tensor in self.held().items():
            tensor.copy_(values[name])

    def whole(self) -> dict[str, Tensor]:
        """All weights of the model in rank 0, on the CPU; empty in the others. All processes take part."""
        if self.part is None:
            return {name: tensor.detach().cpu() for name, tensor in self._named()}
        state = {name: tensor.cpu() for name, tensor in self.part.full_state().items()}
        assert self.mesh is not None
        stages, rank = self.mesh.shape[0], self.rank
        size = self.world // stages  # the first process of stage k is k · size
        device = next(self.model.parameters()).device
        for other in range(1, stages):
            leader = other * size
            if rank == leader:
                dist.send_object_list([[(name, t.shape, t.dtype) for name, t in state.items()]], 0)
                for tensor in state.values():
                    dist.send(tensor.to(device).contiguous(), 0)
            elif rank == 0:
                told: list[list[tuple[str, torch.Size, torch.dtype]]] = [[]]
                dist.recv_object_list(told, leader)
                for name, shape, dtype in told[0]:
                    arriving = torch.empty(shape, dtype=dtype, device=device)
                    dist.recv(arriving, leader)
                    state[name] = arriving.cpu()
        return state if rank == 0 else {}

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.model.named_parameters()
        yield from ((name, each) for name, each in self.model.named_buffers() if not name.endswith(".load"))


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, in the same memory."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
