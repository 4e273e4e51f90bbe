"""A run of finseek's own model: split over its processes, stepped by Lightning, exported whole."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import LightningEnvironment
from torch import Tensor
from torch.utils.data import DataLoader

from finseek.core.errors import ConfigError
from finseek.core.progress import Progress
from finseek.model.flops import flops_per_token
from finseek.train.engines.batches import GlobalBatches, StepBatch, TensorBatch
from finseek.train.engines.first import adapters
from finseek.train.engines.lightning.checkpoint import write_checkpoint
from finseek.train.engines.lightning.module import LanguageModule
from finseek.train.engines.lightning.passes import Passes, PipelinePasses, WholePasses
from finseek.train.engines.lightning.place import Place
from finseek.train.engines.lightning.recompute import recompute_layers
from finseek.train.engines.running import Run
from finseek.train.job import TrainJob
from finseek.train.planner.hardware import peak_of


class LightningRun(Run):
    """One process's part of a job, in the process group that is open, if one is."""

    def __init__(self, job: TrainJob, progress: Progress) -> None:
        super().__init__(job, progress)
        model = self.prepared.first_model()
        self.adapted = adapters(model, job)
        if self.earlier is None and job.options.check and self.rank == 0:
            self.prepared.check(model).raise_if_failed()
        routed = any(".experts." in name and ".lora_" in name for name, _ in model.named_parameters())
        if routed and job.parallel.world_size > 1:
            raise ConfigError(
                "train.lora.target_modules: engine lightning does not split adapters of routed experts over processes:"
                " give attention, set parallel.devices_per_node to 1, or use engine automodel"
            )
        if job.options.gradient_checkpointing:
            recompute_layers(model)
        self.pad_id = model.config.pad_token_id or 0
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.place = Place.of(model, job.parallel)
        self.replica, self.replicas = self.place.replica, self.place.replicas
        passes = self._passes()
        self.shape = passes.shape
        if job.options.lora and dist.is_initialized():  # dropout differs between parts of the data
            torch.manual_seed(job.seed + self.replica)
        self.module = LanguageModule(self.place, passes, job.options, self.prepared.total)
        self.module.asked = lambda: self.preemption.asked is not None
        self.begin()
        peak = peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
        work = flops_per_token(model.config, int(self.prepared.training.lengths.mean()))
        self.work_share = work / (peak * self.world) if peak else None

    def _passes(self) -> Passes:
        options, stages = self.options, self.job.parallel.pipeline_model_parallel_size
        if stages == 1:
            return WholePasses(self.place.model)
        if options.packed_sequence_size:
            raise ConfigError("train.packed_sequence_size: a pipeline takes rows of one sample each: set it to 0")
        count = -(-options.global_batch_size // (options.micro_batch_size * self.replicas))
        return PipelinePasses(self.place, count, (options.micro_batch_size, options.seq_length))

    def train(self, batches: GlobalBatches) -> None:
        """See :class:`Run`."""
        cuda = torch.cuda.is_available()
        trainer = lightning.Trainer(
            accelerator="cuda" if cuda else "cpu",
            devices=[torch.cuda.current_device()] if cuda else 1,
            precision="bf16-mixed" if self.bf16 else "32-true",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=self.job.output,
            plugins=[LightningEnvironment()],
            callbacks=[_Hooks(self)],
        )
        try:
            trainer.fit(self.module, train_dataloaders=DataLoader(batches, batch_size=None))
        except SystemExit as left:  # into which Lightning turns Ctrl-C
            raise (KeyboardInterrupt if isinstance(left.__context__, KeyboardInterrupt) else left) from None

    def evaluating(self) -> AbstractContextManager[dict[str, Tensor]]:
        """See :class:`Run`."""
        return self.module.evaluating()

    def validation_sums(self, batches: list[TensorBatch]) -> tuple[float, float]:
        """See :class:`Run`."""
        loss, action = self.module.validation_sums(batches)
        return loss, action

    def fill(self, weights: dict[str, Tensor]) -> None:
        """See :class:`Run`."""
        self.place.fill(weights)

    def fill_last(self) -> None:
        """See :class:`Run`; where weights are averaged, their average."""
        if self.module.average is not None:
            self.place.fill(self.module.average)

    def training_state(self) -> dict[str, Any]:
        """See :class:`Run`."""
        return self.module.training_state()

    def load_training_state(self, state: dict[str, Any]) -> None:
        """See :class:`Run`."""
        self.module.load_training_state(state)

    def export(self, name: str) -> None:
        """See :class:`Run`."""
        weights = self.place.whole()
        if self.rank == 0:
            config = self.place.model.config
            write_checkpoint(self.job.output / name, config, weights, self.adapted, self.job.tokenizer)


class _Hooks(lightning.Callback):
    def __init__(self, run: LightningRun) -> None:
        self.run = run

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.run.preemption.install()  # Lightning's own handlers, set by now, would end one process between two steps

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: StepBatch, batch_idx: int) -> None:
        self.run.after_step(batch, self.run.module.last)
