"""The model as a Lightning module: one global batch in, one update of the optimiser out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from finseek.train.engines.batches import StepBatch, TensorBatch
from finseek.train.engines.lightning.passes import FIGURES, Passes
from finseek.train.engines.lightning.place import Place, local
from finseek.train.engines.optimizer import adamw
from finseek.train.options import TrainOptions
from finseek.train.schedule import learning_rate


class LanguageModule(lightning.LightningModule):
    """Causal language modelling with the losses and the router update of DeepSeek-V3 (arXiv 2412.19437).

    L = Σ w·nll / Σ w  +  λ · the same of the multi-token-prediction head  +  α · balance loss,
    and after each update: bias += γ · sign(mean load − load), per expert. With adapters the bias stays, as all that
    they are put beside.

    Args:
        place: this process's part of the model, on its device.
        passes: how batches go through it.
        options: how it is trained.
        total_steps: of the job.
    """

    def __init__(self, place: Place, passes: Passes, options: TrainOptions, total_steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = place.model.train()
        self.place, self.passes, self.options, self.total_steps = place, passes, options, total_steps
        self.last: dict[str, Any] = {}
        self.asked: Callable[[], bool] = lambda: False  # whether this process was told to stop soon
        self.optimizer = adamw(self.model, options)
        held = place.held()
        self.average = {name: each.clone() for name, each in held.items()} if options.average_decay else None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, made with the module so that a resumed state can be loaded before the loop starts."""
        return self.optimizer

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """One update from one global batch; its figures are left in ``last``.

        A gradient that is not finite is not applied: the weights stay those of the step before.
        """
        options = self.options
        rate = learning_rate(batch.step, self.total_steps, options)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        figures = self.passes.train(batch.micro, batch.total_weight, self.manual_backward)
        figures[-1] = self.asked()
        norm = float(self.place.clip_gradients(options.gradient_clip_val or math.inf))
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        load = self.place.sum_loads()
        self.model.update_router_bias(0.0 if options.lora else options.router_bias_update_rate)
        self._move_average(batch.step)
        self.last = dict(zip(FIGURES, self.place.sum(figures).tolist(), strict=True)) | {
            "loss_weight": batch.total_weight,
            "grad_norm": norm,
            "learning_rate": rate,
            "router_load": [(counts / counts.sum()).tolist() for counts in load.cpu() if counts.any()],
        }

    @torch.no_grad()
    def validation_sums(self, batches: Sequence[TensorBatch]) -> list[float]:
        """Σ w·nll and Σ nll of action tokens over all processes."""
        moved = [self.trainer.strategy.batch_to_device(batch) for batch in batches]
        with self.trainer.precision_plugin.val_step_context():
            sums: list[float] = self.place.sum(self.passes.validate(moved)).tolist()
        return sums

    @contextmanager
    def evaluating(self) -> Iterator[dict[str, Tensor]]:
        """In evaluation mode with the averaged weights; yields them, as :meth:`Place.held`."""
        trained = None
        if self.average is not None:
            trained = {name: value.clone() for name, value in self.place.held().items()}
            self.place.fill(self.average)
        self.model.eval()
        try:
            yield self.place.held()
        finally:
            self.model.train()
            if trained is not None:
                self.place.fill(trained)

    @torch.no_grad()
    def _move_average(self, step: int) -> None:
        """Average += (1 − d) (weights − average), with d small at first so that the random start is forgotten."""
        if self.average is None:
            return
        decay = min(self.options.average_decay, (1 + step) / (10 + step))
        for name, value in self.place.held().items():
            self.average[name].lerp_(value, 1 - decay)

    def training_state(self) -> dict[str, Any]:
        """Everything of this process that the next step depends on besides its batch: plain tensors and values."""
        optimizer = self.optimizer.state_dict()
        states = {
            number: {name: local(value) if isinstance(value, Tensor) else value for name, value in state.items()}
            for number, state in optimizer["state"].items()
        }
        return {
            "model": self.place.held(),
            "optimizer": states,
            "average": self.average,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`training_state` gave."""
        self.place.fill(state["model"])
        groups = self.optimizer.state_dict()["param_groups"]
        parameters = dict(
            enumerate(parameter for group in self.optimizer.param_groups for parameter in group["params"])
        )
        states = {
            number: {name: like(value, parameters[number]) for name, value in values.items()}
            for number, values in state["optimizer"].items()
        }
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})
        if self.average is not None:
            self.average = {name: each.to(self.device) for name, each in state["average"].items()}
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"])


def like(value: Any, parameter: Tensor) -> Any:
    """A moment as a distributed tensor where its parameter is one; other values as they are."""
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.dim():
        value = value.to(parameter.device)
        return DTensor.from_local(
            value, parameter.device_mesh, parameter.placements, run_check=False, shape=parameter.shape,
            stride=parameter.stride(),
        )  # fmt: skip
    return value
