"""Engine `lightning`: finseek's own DeepSeek-V3 under a Lightning Trainer.

Lightning places the model, chooses the precision and runs the loop; the optimiser step, its place in the data
and what is written are ours, so that a killed run goes on exactly where its last state was.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning
import numpy as np
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader, IterableDataset

from finseek.core.artifacts import atomic_folder, remove_partials
from finseek.core.errors import ConfigError, FinseekError
from finseek.core.progress import Progress, silent
from finseek.samples import Encoder, load_samples
from finseek.train.check import check_job
from finseek.train.data import BatchPlan, TokenSet, encode_samples_of, micro_batches
from finseek.train.engines.module import LanguageModule, StepBatch, first_model, tensors
from finseek.train.job import TrainJob, TrainResult
from finseek.train.preemption import Preemption
from finseek.train.standing import Standing
from finseek.train.state import (
    BEST,
    CHECKPOINT,
    LOG,
    STATE,
    TrainLog,
    describe,
    fingerprint,
    load_state,
    save_state,
)
from finseek.train.tracking import trackers


class LightningEngine:
    """Trains a :class:`finseek.model.DeepSeekV3` in this process."""

    def run(self, job: TrainJob, progress: Progress = silent) -> TrainResult:
        """Train ``job``, or go on with it from the state that a killed process left in ``job.output``.

        On a CPU the result is a function of the job alone (seed and ``train.threads`` included).

        Raises:
            ConfigError: for a layout that this engine cannot run.
            InputError: for samples that cannot be trained on.
            FinseekError: when the loss is no longer finite.
        """
        if job.parallel.world_size > 1:
            raise ConfigError(
                f"parallel: {job.parallel.world_size} devices asked for; engine lightning runs on one:"
                " set num_nodes and devices_per_node to 1"
            )
        with _settings(job.options.threads, job.seed), _quiet():
            return _Run(job, progress).go()


class _Run:
    """One process's part of a job."""

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
        self.module = LanguageModule(first_model(job, encoder), job.options, self.total)
        self.pad_id = self.module.model.config.pad_token_id or 0
        self.standing = Standing()
        remove_partials(job.output)
        self.earlier = load_state(job.output / STATE, self.fingerprint)
        if self.earlier:
            self.standing = Standing.from_dict(self.earlier["standing"])
            self.module.load_training_state(self.earlier["module"])
        elif job.options.check:
            epoch = self.plan.steps_per_epoch
            check_job(
                self.module.model, samples, self.training, encoder, job.options, self.total, epoch
            ).raise_if_failed()
        self.log = TrainLog(job.output / LOG, self.earlier["log_length"] if self.earlier else 0)
        self.clock = time.monotonic() - self.standing.seconds

    def go(self) -> TrainResult:
        """Train the steps that are left and write the checkpoint."""
        if self.standing.step < self.total:
            steps = DataLoader(_Steps(self), batch_size=None)
            name, folder = self.job.output.parent.name, self.job.output / "tracking"
            sending = trackers(self.job.tracking, folder, name, describe(self.job))
            try:
                with Preemption() as self.preemption, sending as self.track:
                    self._trainer().fit(self.module, train_dataloaders=steps)
            except SIGTERMException:  # Lightning's own, between two steps
                self._save()
                raise self._stopped() from None
            except SystemExit as left:  # into which Lightning turns Ctrl-C
                raise (KeyboardInterrupt if isinstance(left.__context__, KeyboardInterrupt) else left) from None
            finally:
                self.log.close()
        output = self.job.output
        if self.options.keep == "best":
            best = torch.load(output / BEST, map_location="cpu", weights_only=True)
            self.module.model.load_state_dict(best["model"])
        with atomic_folder(output / CHECKPOINT) as folder:
            if self.options.keep == "best":
                self.module.model.save_pretrained(folder)
            else:
                with self.module.evaluating():
                    self.module.model.save_pretrained(folder)
            for file in sorted(self.job.tokenizer.iterdir()):
                shutil.copyfile(file, folder / file.name)
        (output / STATE).unlink(missing_ok=True)
        (output / BEST).unlink(missing_ok=True)
        at = self.standing
        return TrainResult(
            output / CHECKPOINT, output / LOG, at.step, at.tokens, at.best_step, at.best_validation_loss, at.seconds
        )

    def _trainer(self) -> lightning.Trainer:
        cuda = torch.cuda.is_available()
        bf16 = self.options.precision == "bf16" or (self.options.precision == "auto" and cuda)
        return lightning.Trainer(
            accelerator="cuda" if cuda else "cpu",
            devices=1,
            precision="bf16-mixed" if bf16 else "32-true",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=self.job.output,
            plugins=[LightningEnvironment()],
            callbacks=[_AfterStep(self)],
        )

    def after_step(self, batch: StepBatch) -> None:
        """Log, validate and save what step ``batch.step`` (from 0) calls for."""
        at, options = self.standing, self.options
        at.add(batch.tokens, self.module.last)
        if not math.isfinite(at.loss_sum):
            raise FinseekError(
                f"training diverged: the loss of step {at.step} is {self.module.last['loss_sum']}, its gradient norm"
                f" {self.module.last['grad_norm']}, the last good validation was at step {at.best_step};"
                " lower train.learning_rate or lengthen train.warmup_steps"
            )
        last = at.step == self.total
        validation = self._validate() if at.step % self.validate_every == 0 or last else None
        at.seconds = time.monotonic() - self.clock
        if validation or at.step % options.log_every_n_steps == 0:
            line = at.line(validation, (at.step - 1) // self.plan.steps_per_epoch)
            self.log.write(line)
            self.track(line, at.step)
        asked = self.preemption.asked  # read once: a signal from here on waits for the next step
        if at.step % options.checkpoint_every == 0 or last or asked:
            self._save()
        self.progress("train", at.step, self.total, "steps")
        if asked and not last:
            raise self._stopped()

    def _save(self) -> None:
        state = {"fingerprint": self.fingerprint, "standing": self.standing.to_dict(), "log_length": self.log.length}
        save_state(self.job.output / STATE, state | {"module": self.module.training_state()})

    def _stopped(self) -> FinseekError:
        return FinseekError(
            f"training stopped by {self.preemption.asked} after step {self.standing.step} of {self.total};"
            " its state is saved: start the same run again to go on"
        )

    def _validate(self) -> dict[str, float | None]:
        """Loss of the answers of the validation split; new best weights are kept."""
        weights = self.validation.token_weights(self.options.loss_weights, answer_only=True)
        order = np.argsort(-self.validation.lengths, kind="stable")
        sums = np.zeros(4)
        with self.module.evaluating() as weights_now:
            for rows in micro_batches(order, self.options.micro_batch_size):
                sums += self.module.validation_sums(tensors(self.validation.collate(rows, weights, self.pad_id)))
            loss = float(sums[0] / sums[1])
            action_loss = float(sums[2] / sums[3]) if sums[3] else None
            if loss < self.standing.best_validation_loss:
                self.standing.best_validation_loss, self.standing.best_step = loss, self.standing.step
                save_state(self.job.output / BEST, {"model": weights_now})
        return {"validation_loss": loss, "validation_action_loss": action_loss}


class _Steps(IterableDataset[StepBatch]):
    """The global batches that are left."""

    def __init__(self, run: _Run) -> None:
        self.run = run

    def __len__(self) -> int:
        return self.run.total - self.run.standing.step

    def __iter__(self) -> Iterator[StepBatch]:
        run, options = self.run, self.run.options
        training: TokenSet = run.training
        weights = training.token_weights(options.loss_weights, options.answer_only_loss)
        for step, rows in run.plan.steps(run.standing.step, run.total):
            micro = [
                tensors(training.collate(part, weights, run.pad_id))
                for part in micro_batches(rows, options.micro_batch_size)
            ]
            total_weight = sum(float(batch.weight.sum(dtype=torch.float64)) for batch in micro)
            yield StepBatch(step, micro, total_weight, int(training.lengths[rows].sum()))


class _AfterStep(lightning.Callback):
    def __init__(self, run: _Run) -> None:
        self.run = run

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.run.after_step(batch)


@contextmanager
def _settings(threads: int, seed: int) -> Iterator[None]:
    """Threads, determinism and the generator of random weights, all put back afterwards."""
    old_threads, old_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    old_fill = torch.utils.deterministic.fill_uninitialized_memory
    cuda = torch.cuda.is_available()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(not cuda)
        torch.utils.deterministic.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.set_num_threads(old_threads)
            torch.use_deterministic_algorithms(old_deterministic)
            torch.utils.deterministic.fill_uninitialized_memory = old_fill


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice on workers, loggers and checkpoints concerns loops that we don't use."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for module in (r"lightning\..*", r"lightning_fabric\..*", r"torch\.utils\.data\..*"):
                warnings.filterwarnings("ignore", module=module)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
