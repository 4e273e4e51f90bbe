"""One process's run of a job: its data, its loop, and what it writes."""

from __future__ import annotations

import math
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import lightning
import numpy as np
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import LightningEnvironment
from torch.utils.data import DataLoader, IterableDataset

from finseek.core.errors import ConfigError, FinseekError, Stopped
from finseek.core.progress import Progress
from finseek.model.flops import flops_per_token
from finseek.samples import Encoder, load_samples
from finseek.train.check import check_job
from finseek.train.data import BatchPlan, TokenSet, encode_samples_of, passes
from finseek.train.engines.export import write_checkpoint
from finseek.train.engines.first import adapters, first_model
from finseek.train.engines.module import LanguageModule, StepBatch
from finseek.train.engines.passes import Passes, PipelinePasses, TensorBatch, WholePasses, tensors
from finseek.train.engines.place import Place
from finseek.train.engines.recompute import recompute_layers
from finseek.train.job import TrainJob, TrainResult
from finseek.train.planner.hardware import GIB, peak_of
from finseek.train.preemption import Preemption
from finseek.train.standing import Standing
from finseek.train.state import (
    BEST,
    CHECKPOINT,
    LAST_GOOD,
    LOG,
    STATES,
    StateWriter,
    TrainLog,
    describe,
    fingerprint,
    load_file,
    newest_state,
    states,
)
from finseek.train.tracking import trackers


class Run:
    """One process's part of a job, in the process group that is open, if one is."""

    def __init__(self, job: TrainJob, progress: Progress) -> None:
        self.job, self.options, self.progress = job, job.options, progress
        encoder = Encoder(job.tokenizer, job.template)
        samples = load_samples(job.training)
        self.training = encode_samples_of(job, job.training, progress)
        self.validation = encode_samples_of(job, job.validation)
        self.plan = BatchPlan(self.training.lengths, job.options.global_batch_size, job.seed)
        self.total = job.options.max_steps or job.options.epochs * self.plan.steps_per_epoch
        self.validate_every = job.options.val_check_interval or self.plan.steps_per_epoch
        self.fingerprint = fingerprint(job)
        self.preemption = Preemption()

        rank = dist.get_rank() if dist.is_initialized() else 0
        model = first_model(job, encoder)
        self.adapted = adapters(model, job)
        earlier = newest_state(job.output, self.fingerprint, rank)
        if earlier is None and job.options.check and rank == 0:
            epoch = self.plan.steps_per_epoch
            check_job(model, samples, self.training, encoder, job.options, self.total, epoch).raise_if_failed()
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
        self.passes = self._passes()
        if job.options.lora and dist.is_initialized():  # dropout differs between parts of the data
            torch.manual_seed(job.seed + self.place.replica)
        self.module = LanguageModule(self.place, self.passes, job.options, self.total)
        self.module.asked = lambda: self.preemption.asked is not None
        self.standing = Standing()
        if earlier is not None:
            self.standing = Standing.from_dict(earlier["standing"])
            self.module.load_training_state(earlier["module"])
        elif rank == 0:
            for name in (STATES, BEST):
                shutil.rmtree(job.output / name, ignore_errors=True)
        self.writer = StateWriter(job.output, rank, self.place.world, job.options.keep_states)
        self.log = TrainLog(job.output / LOG, earlier["log_length"] if earlier else 0) if rank == 0 else None
        config = model.config
        peak = peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
        work = flops_per_token(config, int(self.training.lengths.mean()))
        self.work_share = work / (peak * self.place.world) if peak else None
        self.clock = time.monotonic() - self.standing.seconds

    def _passes(self) -> Passes:
        options, stages = self.options, self.job.parallel.pipeline_model_parallel_size
        if stages == 1:
            return WholePasses(self.place.model)
        if options.packed_sequence_size:
            raise ConfigError("train.packed_sequence_size: a pipeline takes rows of one sample each: set it to 0")
        count = -(-options.global_batch_size // (options.micro_batch_size * self.place.replicas))
        return PipelinePasses(self.place, count, (options.micro_batch_size, options.seq_length))

    def go(self) -> TrainResult:
        """Train the steps that are left and write the checkpoint."""
        output, at = self.job.output, self.standing
        if at.step < self.total:
            steps = DataLoader(_Steps(self), batch_size=None)
            try:
                with ExitStack() as stack:
                    stack.enter_context(self.preemption)
                    self.track = stack.enter_context(self._trackers())
                    self._trainer().fit(self.module, train_dataloaders=steps)
            except SystemExit as left:  # into which Lightning turns Ctrl-C
                raise (KeyboardInterrupt if isinstance(left.__context__, KeyboardInterrupt) else left) from None
            finally:
                if self.log:
                    self.log.close()
        self.writer.wait()
        if self.options.keep == "best":
            self._fill_best()
        elif self.module.average is not None:
            self.place.fill(self.module.average)
        self._export(CHECKPOINT)
        if self.place.world > 1:
            dist.barrier()  # a slower process may still read the weights that go now
        if self.place.rank == 0:
            for name in (STATES, BEST, LAST_GOOD):
                shutil.rmtree(output / name, ignore_errors=True)
        return TrainResult(
            output / CHECKPOINT, output / LOG, at.step, at.tokens, at.best_step, at.best_validation_loss, at.seconds
        )

    def _trackers(self) -> Any:
        tracking = (
            self.job.tracking
            if self.place.rank == 0
            else self.job.tracking.model_copy(update=dict.fromkeys(self.job.tracking.backends, False))
        )
        attached = describe(self.job) | {"origin": self.job.origin}
        return trackers(tracking, self.job.output / "tracking", self.job.name, attached)

    def _trainer(self) -> lightning.Trainer:
        cuda = torch.cuda.is_available()
        bf16 = self.options.precision == "bf16" or (self.options.precision == "auto" and cuda)
        return lightning.Trainer(
            accelerator="cuda" if cuda else "cpu",
            devices=[torch.cuda.current_device()] if cuda else 1,
            precision="bf16-mixed" if bf16 else "32-true",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=self.job.output,
            plugins=[LightningEnvironment()],
            callbacks=[_Hooks(self)],
        )

    def after_step(self, batch: StepBatch) -> None:
        """Log, validate and save what step ``batch.step`` (from 0) calls for; alike in all processes."""
        at, options = self.standing, self.options
        at.add(batch.tokens, self.module.last)
        fault = at.fault()
        if fault:
            raise self._diverged(fault)
        last, asked = at.step == self.total, self.module.last["asked"] > 0
        validation = self._validate() if at.step % self.validate_every == 0 or last else None
        if validation and not math.isfinite(validation["validation_loss"]):
            raise self._diverged(f"the validation loss of step {at.step} is {validation['validation_loss']:g}")
        at.seconds = time.monotonic() - self.clock
        if validation or at.step % options.log_every_n_steps == 0:
            line = at.line(validation, (at.step - 1) // self.plan.steps_per_epoch, self.work_share, memory_in_use())
            if self.log:
                self.log.write(line)
            self.track(line, at.step)
        if at.step % options.checkpoint_every == 0 or asked:
            self._save()
        self.progress("train", at.step, self.total, "steps")
        if asked and not last:
            self.writer.wait()
            by = self.preemption.asked or "a signal elsewhere"
            raise Stopped(
                f"training stopped by {by} after step {at.step} of {self.total};"
                " its state is saved: start the same run again to go on"
            )

    def _save(self) -> None:
        state = {
            "fingerprint": self.fingerprint,
            "standing": self.standing.to_dict(),
            "log_length": self.log.length if self.log else 0,
            "module": self.module.training_state(),
        }
        self.writer.write(f"{STATES}/step-{self.standing.step}", state)

    def _diverged(self, fault: str) -> FinseekError:
        """The diagnosis; the weights of the lowest validation loss, the last known to be good, are written beside."""
        at = self.standing
        self.writer.wait()
        where = "no weights were validated before"
        if states(self.job.output / BEST):
            self._fill_best()
            self._export(LAST_GOOD)
            where = f"the last good weights, of step {at.best_step} with validation loss"
            where += f" {at.best_validation_loss:.3g}, are in {self.job.output / LAST_GOOD}"
        return FinseekError(
            f"training diverged: {fault}; {where}; lower train.learning_rate ({self.options.learning_rate:g}) or"
            " lengthen train.warmup_steps"
        )

    def _fill_best(self) -> None:
        self.place.fill(load_file(states(self.job.output / BEST)[-1], self.place.rank)["model"])

    def _export(self, name: str) -> None:
        """Write the weights at hand as a Hugging Face folder; all processes take part."""
        weights = self.place.whole()
        if self.place.rank == 0:
            write_checkpoint(self.job.output / name, self.place.model.config, weights, self.adapted, self.job.tokenizer)

    def _validate(self) -> dict[str, Any]:
        """Loss of the answers of the validation split; new best weights are kept."""
        at, samples = self.standing, self.validation
        weights = samples.token_weights(self.options.loss_weights, answer_only=True)
        order = np.argsort(-samples.lengths, kind="stable")
        with self.module.evaluating() as held:
            loss, action = self.module.validation_sums(self.batches(samples, order, weights))
            loss /= float(weights.sum(dtype=np.float64))
            if loss < at.best_validation_loss:
                at.best_validation_loss, at.best_step = loss, at.step
                self.writer.write(f"{BEST}/step-{at.step}", {"model": held})
        actions = int((samples.roles == 1).sum())
        return {"validation_loss": loss, "validation_action_loss": action / actions if actions else None}

    def batches(self, samples: TokenSet, rows: np.ndarray, weights: np.ndarray) -> list[TensorBatch]:
        """This process's passes over some samples."""
        options, place = self.options, self.place
        own = passes(
            rows, samples.lengths, options.micro_batch_size, options.packed_sequence_size, place.replica, place.replicas
        )
        return [tensors(samples.collate(each, weights, self.pad_id, self.passes.shape)) for each in own]


class _Steps(IterableDataset[StepBatch]):
    """The global batches that are left."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __len__(self) -> int:
        return self.run.total - self.run.standing.step

    def __iter__(self) -> Iterator[StepBatch]:
        run, options, training = self.run, self.run.options, self.run.training
        weights = training.token_weights(options.loss_weights, options.answer_only_loss)
        by_sample = np.add.reduceat(weights.astype(np.float64), training.starts[:-1])
        for step, rows in run.plan.steps(run.standing.step, run.total):
            total_weight, tokens = float(by_sample[rows].sum()), int(training.lengths[rows].sum())
            yield StepBatch(step, run.batches(training, rows, weights), total_weight, tokens)


class _Hooks(lightning.Callback):
    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.run.preemption.install()  # Lightning's own handlers, set by now, would end one process between two steps

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.run.after_step(batch)


def memory_in_use() -> float:
    """Most memory in use so far, GiB: of the GPU, or of this process."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / GIB)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
