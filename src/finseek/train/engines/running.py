"""One process's run of a job, whatever trains it: what follows a step, and what the job leaves.

An engine brings the model and the step; what is logged, validated, saved, taken up again and written is the same in
all of them.
"""

from __future__ import annotations

import math
import resource
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from finseek.core.errors import FinseekError, Stopped
from finseek.core.progress import Progress
from finseek.train.data import ACTION, TokenSet, passes
from finseek.train.engines.batches import GlobalBatches, StepBatch, TensorBatch, tensors
from finseek.train.engines.prepared import prepare
from finseek.train.job import TrainJob, TrainResult
from finseek.train.planner.hardware import GIB
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
from finseek.train.tracking import Sink, trackers


class Run(ABC):
    """One process's part of a job, from its last state on.

    Attributes:
        prepared: samples and steps.
        earlier: the state that a killed process left, until the run has begun; None for a new job.
        standing: where the job is.
        pad_id: token of padding, as the engine's model has it.
        shape: (b, T) that every pass must have; None takes any.
        replica, replicas: which part of the data this process sees, and how many there are.
        work_share: operations of a token over the peak of all devices, in seconds; None where that is unknown.
    """

    pad_id = 0
    shape: tuple[int, int] | None = None
    replica, replicas = 0, 1
    work_share: float | None = None

    def __init__(self, job: TrainJob, progress: Progress) -> None:
        self.job, self.options, self.progress = job, job.options, progress
        several = dist.is_initialized()
        self.rank: int = dist.get_rank() if several else 0
        self.world: int = dist.get_world_size() if several else 1
        self.prepared = prepare(job, progress)
        self.fingerprint = fingerprint(job)
        self.earlier = newest_state(job.output, self.fingerprint, self.rank)
        self.standing = Standing.from_dict(self.earlier["standing"]) if self.earlier else Standing()
        self.preemption = Preemption()

    @property
    def bf16(self) -> bool:
        """Whether the job computes in bfloat16."""
        return self.options.precision == "bf16" or (self.options.precision == "auto" and torch.cuda.is_available())

    @abstractmethod
    def train(self, batches: GlobalBatches) -> None:
        """Take the steps, and call :meth:`after_step` behind each."""

    @abstractmethod
    def evaluating(self) -> AbstractContextManager[dict[str, Tensor]]:
        """With the weights that would be kept, which it gives: this process's part of what training changes."""

    @abstractmethod
    def validation_sums(self, batches: list[TensorBatch]) -> tuple[float, float]:
        """Σ w·nll and Σ nll of action tokens, over all processes."""

    @abstractmethod
    def fill(self, weights: dict[str, Tensor]) -> None:
        """Put weights that :meth:`evaluating` gave in place."""

    @abstractmethod
    def fill_last(self) -> None:
        """Put those of the last step in place."""

    @abstractmethod
    def training_state(self) -> dict[str, Any]:
        """All that the next step depends on besides its batch."""

    @abstractmethod
    def load_training_state(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`training_state` gave."""

    @abstractmethod
    def export(self, name: str) -> None:
        """Write the weights at hand as a Hugging Face folder of that name; all processes take part."""

    def begin(self) -> None:
        """Take up the earlier state, or clear what another job left; an engine calls it when it has its model."""
        kept = 0
        if self.earlier is not None:
            self.load_training_state(self.earlier["module"])
            kept, self.earlier = self.earlier["log_length"], None
        elif self.rank == 0:
            self._clear(STATES, BEST)
        self.writer = StateWriter(self.job.output, self.rank, self.world, self.options.keep_states)
        self.log = TrainLog(self.job.output / LOG, kept) if self.rank == 0 else None
        self.clock = time.monotonic() - self.standing.seconds

    def go(self) -> TrainResult:
        """Train the steps that are left and write the checkpoint."""
        at, output, prepared = self.standing, self.job.output, self.prepared
        weights = prepared.training.token_weights(self.options.loss_weights, self.options.answer_only_loss)
        left = GlobalBatches(prepared.plan, prepared.training, weights, self.passes_over, at.step, prepared.total)
        try:
            if len(left):
                with self.preemption, self._trackers() as self.track:
                    self.train(left)
        finally:
            if self.log:
                self.log.close()
        self.writer.wait()
        if self.options.keep == "best":
            self._fill_best()
        else:
            self.fill_last()
        self.export(CHECKPOINT)
        if self.world > 1:
            dist.barrier()  # a slower process may still read the weights that go now
        if self.rank == 0:
            self._clear(STATES, BEST, LAST_GOOD)
        return TrainResult(
            output / CHECKPOINT, output / LOG, at.step, at.tokens, at.best_step, at.best_validation_loss, at.seconds
        )

    def after_step(self, batch: StepBatch, figures: Mapping[str, Any]) -> None:
        """Log, validate and save what step ``batch.step`` (from 0) calls for; alike in all processes.

        Args:
            batch: of the step.
            figures: of the step, as :meth:`Standing.add` counts them, and how many processes were ``asked`` to stop.

        Raises:
            FinseekError: the step has diverged.
            Stopped: a process was asked to; the state is saved.
        """
        at, options, total = self.standing, self.options, self.prepared.total
        at.add(batch.tokens, figures)
        fault = at.fault()
        if fault:
            raise self.diverged(fault)
        last, asked = at.step == total, figures["asked"] > 0
        validation = self._validate() if at.step % self.prepared.validate_every == 0 or last else None
        if validation and not math.isfinite(validation["validation_loss"]):
            raise self.diverged(f"the validation loss of step {at.step} is {validation['validation_loss']:g}")
        at.seconds = time.monotonic() - self.clock
        if validation or at.step % options.log_every_n_steps == 0:
            epoch = (at.step - 1) // self.prepared.plan.steps_per_epoch
            line = at.line(validation, epoch, self.work_share, memory_in_use())
            if self.log:
                self.log.write(line)
            self.track(line, at.step)
        if at.step % options.checkpoint_every == 0 or asked:
            self._save()
        self.progress("train", at.step, total, "steps")
        if asked and not last:
            self.writer.wait()
            by = self.preemption.asked or "a signal elsewhere"
            raise Stopped(
                f"training stopped by {by} after step {at.step} of {total};"
                " its state is saved: start the same run again to go on"
            )

    def diverged(self, fault: str) -> FinseekError:
        """The diagnosis; the weights of the lowest validation loss, the last known to be good, are written beside."""
        at = self.standing
        self.writer.wait()
        where = "no weights were validated before"
        if states(self.job.output / BEST):
            self._fill_best()
            self.export(LAST_GOOD)
            where = f"the last good weights, of step {at.best_step} with validation loss"
            where += f" {at.best_validation_loss:.3g}, are in {self.job.output / LAST_GOOD}"
        return FinseekError(
            f"training diverged: {fault}; {where}; lower train.learning_rate ({self.options.learning_rate:g}) or"
            " lengthen train.warmup_steps"
        )

    def passes_over(
        self, samples: TokenSet, rows: NDArray[np.int64], weights: NDArray[np.float32]
    ) -> list[TensorBatch]:
        """This process's passes over some samples."""
        size, packed = self.options.micro_batch_size, self.options.packed_sequence_size
        own = passes(rows, samples.lengths, size, packed, self.replica, self.replicas)
        return [tensors(samples.collate(each, weights, self.pad_id, self.shape)) for each in own]

    def _validate(self) -> dict[str, Any]:
        """Loss of the answers of the validation split; new best weights are kept."""
        at, samples = self.standing, self.prepared.validation
        weights = samples.token_weights(self.options.loss_weights, answer_only=True)
        order = np.argsort(-samples.lengths, kind="stable")
        with self.evaluating() as held:
            loss, action = self.validation_sums(self.passes_over(samples, order, weights))
            loss /= float(weights.sum(dtype=np.float64))
            if loss < at.best_validation_loss:
                at.best_validation_loss, at.best_step = loss, at.step
                self.writer.write(f"{BEST}/step-{at.step}", {"model": held})
        actions = int((samples.roles == ACTION).sum())
        return {"validation_loss": loss, "validation_action_loss": action / actions if actions else None}

    def _save(self) -> None:
        state = {
            "fingerprint": self.fingerprint,
            "standing": self.standing.to_dict(),
            "log_length": self.log.length if self.log else 0,
            "module": self.training_state(),
        }
        self.writer.write(f"{STATES}/step-{self.standing.step}", state)

    def _fill_best(self) -> None:
        self.fill(load_file(states(self.job.output / BEST)[-1], self.rank)["model"])

    def _trackers(self) -> AbstractContextManager[Sink]:
        """Those of the job in the first process, none in the others."""
        tracking = self.job.tracking
        if self.rank:
            tracking = tracking.model_copy(update=dict.fromkeys(tracking.backends, False))
        attached = describe(self.job) | {"origin": self.job.origin}
        return trackers(tracking, self.job.output / "tracking", self.job.name, attached)

    def _clear(self, *names: str) -> None:
        for name in names:
            shutil.rmtree(self.job.output / name, ignore_errors=True)


def memory_in_use() -> float:
    """Most memory in use so far, GiB: of the GPU, or of this process."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / GIB)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
