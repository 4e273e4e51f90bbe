"""Engine `trl`: causal models of transformers of any family, with TRL's trainer, PEFT's adapters and 4-bit weights.

TRL and PEFT prepare the model and run the loop; samples, their order, the loss mask, the loss, the log and the resume
state are those of every engine.
"""

from __future__ import annotations

import math
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset

from finseek.core.artifacts import remove_partials
from finseek.core.errors import ConfigError, FinseekError, Note, Stopped
from finseek.core.progress import Progress, silent
from finseek.model.imports import quiet_imports
from finseek.samples import Encoder, load_samples
from finseek.train.check import CheckReport, check_job
from finseek.train.data import ACTION, BatchPlan, TokenSet, encode_samples_of, passes
from finseek.train.engines.module import StepBatch
from finseek.train.engines.passes import TensorBatch, tensors
from finseek.train.engines.running import memory_in_use
from finseek.train.engines.settings import process_settings
from finseek.train.engines.trl_model import load_model, save_checkpoint
from finseek.train.job import TrainJob, TrainResult
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


class TrlEngine:
    """Trains a causal model of transformers in this process."""

    def run(self, job: TrainJob, progress: Progress = silent) -> TrainResult:
        """Train ``job``, or go on with it from the state that a killed process left in ``job.output``.

        Raises:
            ConfigError: for what this engine, the checkpoint and the options cannot do together.
            InputError: for samples that cannot be trained on.
            FinseekError: when the loss is no longer finite.
        """
        refuse(job)
        remove_partials(job.output)
        with _settings(job):
            return _Run(job, progress).go()

    def check(self, job: TrainJob) -> CheckReport:
        """What is looked at before the first step of ``job``, which is not trained."""
        refuse(job)
        with _settings(job):
            run = _Run(replace(job, options=job.options.model_copy(update={"check": False})), silent)
            run.log.close()
            return run.check(Encoder(job.tokenizer, job.template))


@contextmanager
def _settings(job: TrainJob) -> Iterator[None]:
    with quiet_imports():
        from finseek.train.engines.trl_trainer import quiet
    with process_settings(job.options.threads, job.seed), quiet(), quiet_imports():
        yield


def refuse(job: TrainJob) -> None:
    """Refuse what this engine does not have.

    Raises:
        ConfigError: naming the key.
    """
    rules = (
        (job.parallel.world_size > 1, f"parallel: {job.parallel.world_size} devices asked for; engine trl runs on one:"
         " set num_nodes and devices_per_node to 1, or take engine lightning or automodel"),
        (job.options.packed_sequence_size > 0, "train.packed_sequence_size: engine trl pads: set it to 0"),
        (job.options.average_decay > 0, "train.average_decay: engine trl keeps no average of weights: set it to 0"),
    )  # fmt: skip
    for broken, message in rules:
        if broken:
            raise ConfigError(message)


class _Run:
    """The run of a job in this process."""

    def __init__(self, job: TrainJob, progress: Progress) -> None:
        from finseek.train.engines.trl_trainer import StepTrainer

        self.job, self.options, self.progress = job, job.options, progress
        encoder = Encoder(job.tokenizer, job.template)
        self.samples = load_samples(job.training)
        self.training = encode_samples_of(job, job.training, progress)
        self.validation = encode_samples_of(job, job.validation)
        self.plan = BatchPlan(self.training.lengths, job.options.global_batch_size, job.seed)
        self.total = job.options.max_steps or job.options.epochs * self.plan.steps_per_epoch
        self.validate_every = job.options.val_check_interval or self.plan.steps_per_epoch
        self.fingerprint = fingerprint(job)
        bf16 = job.options.precision == "bf16" or (job.options.precision == "auto" and torch.cuda.is_available())
        loaded = load_model(job, encoder, bf16)
        self.pad_id = loaded.pad_id
        for notice in loaded.notices:
            warnings.warn(notice, Note, stacklevel=2)
        self.trainer = StepTrainer(loaded.model, job, self.total, bf16, self.fault, self.after_step)
        earlier = newest_state(job.output, self.fingerprint)
        self.standing = Standing()
        if earlier:
            self.standing = Standing.from_dict(earlier["standing"])
            self.trainer.load_training_state(earlier["trainer"])
        else:
            if job.options.check:
                self.check(encoder).raise_if_failed()
            for name in (STATES, BEST):
                shutil.rmtree(job.output / name, ignore_errors=True)
        self.writer = StateWriter(job.output, keep=job.options.keep_states)
        self.log = TrainLog(job.output / LOG, earlier["log_length"] if earlier else 0)
        self.preemption = Preemption()
        self.clock = time.monotonic() - self.standing.seconds

    def check(self, encoder: Encoder) -> CheckReport:
        """What is looked at before the first step."""
        return check_job(
            self.trainer.subject(), self.samples, self.training, encoder, self.options, self.total,
            self.plan.steps_per_epoch,
        )  # fmt: skip

    def go(self) -> TrainResult:
        """Train the steps that are left and write the checkpoint."""
        output, at = self.job.output, self.standing
        sending = trackers(self.job.tracking, output / "tracking", self.job.name, describe(self.job))
        try:
            with self.preemption, sending as self.track:
                if at.step < self.total:
                    self.trainer.train_on(_Steps(self))
        finally:
            self.log.close()
        self.writer.wait()
        self._export(CHECKPOINT, self.options.keep == "best")
        for name in (STATES, BEST):
            shutil.rmtree(output / name, ignore_errors=True)
        return TrainResult(
            output / CHECKPOINT, output / LOG, at.step, at.tokens, at.best_step, at.best_validation_loss, at.seconds
        )

    def after_step(self, batch: StepBatch) -> None:
        """Log, validate and save what step ``batch.step`` (from 0) calls for."""
        at, options = self.standing, self.options
        at.add(batch.tokens, self.trainer.last)
        fault = at.fault()
        if fault:
            self.fault(fault)
        last, asked = at.step == self.total, self.preemption.asked
        validation = self._validate() if at.step % self.validate_every == 0 or last else None
        if validation and not math.isfinite(validation["validation_loss"]):
            self.fault(f"the validation loss of step {at.step} is {validation['validation_loss']:g}")
        at.seconds = time.monotonic() - self.clock
        if validation or at.step % options.log_every_n_steps == 0:
            line = at.line(validation, (at.step - 1) // self.plan.steps_per_epoch, None, memory_in_use())
            self.log.write(line)
            self.track(line, at.step)
        if at.step % options.checkpoint_every == 0 or asked:
            state = {"fingerprint": self.fingerprint, "standing": at.to_dict(), "log_length": self.log.length}
            self.writer.write(f"{STATES}/step-{at.step}", state | {"trainer": self.trainer.training_state()})
        self.progress("train", at.step, self.total, "steps")
        if asked and not last:
            self.writer.wait()
            raise Stopped(
                f"training stopped by {asked} after step {at.step} of {self.total};"
                " its state is saved: start the same run again to go on"
            )

    def fault(self, what: str) -> NoReturn:
        """Stop with a diagnosis; the last good weights are written beside.

        Raises:
            FinseekError: always.
        """
        at = self.standing
        self.writer.wait()
        where = "no weights were validated before"
        if states(self.job.output / BEST):
            self._export(LAST_GOOD, best=True)
            where = f"the best weights, of step {at.best_step}, are in {self.job.output / LAST_GOOD}"
        raise FinseekError(
            f"training diverged: {what}; the last good validation was at step {at.best_step}; {where}; lower"
            f" train.learning_rate ({self.options.learning_rate:g}) or lengthen train.warmup_steps"
        )

    def _export(self, name: str, best: bool) -> None:
        if best:
            self.trainer.fill(load_file(states(self.job.output / BEST)[-1], 0)["weights"])
        save_checkpoint(self.trainer.model, self.job.tokenizer, self.job.output / name)

    def _validate(self) -> dict[str, Any]:
        """Loss of the answers of the validation split; new best weights are kept."""
        at, samples = self.standing, self.validation
        weights = samples.token_weights(self.options.loss_weights, answer_only=True)
        order = np.argsort(-samples.lengths, kind="stable")
        loss, action = self.trainer.validation_sums(self.batches(samples, order, weights))
        loss /= float(weights.sum(dtype=np.float64))
        if loss < at.best_validation_loss:
            at.best_validation_loss, at.best_step = loss, at.step
            self.writer.write(f"{BEST}/step-{at.step}", {"weights": self.trainer.trained_weights()})
        actions = int((samples.roles == ACTION).sum())
        return {"validation_loss": loss, "validation_action_loss": action / actions if actions else None}

    def batches(self, samples: TokenSet, rows: NDArray[np.int64], weights: NDArray[np.float32]) -> list[TensorBatch]:
        """The passes over some samples."""
        size = self.options.micro_batch_size
        return [tensors(samples.collate(each, weights, self.pad_id)) for each in passes(rows, samples.lengths, size)]


class _Steps(IterableDataset[StepBatch]):
    """The global batches that are left."""

    def __init__(self, run: _Run) -> None:
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
