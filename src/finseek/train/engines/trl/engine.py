"""Engine `trl`: causal models of transformers of any family, with TRL's trainer, PEFT's adapters and 4-bit weights.

TRL and PEFT prepare the model and run the loop; samples, their order, the loss mask, the loss, the log and the resume
state are those of every engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NoReturn

from torch import Tensor

from finseek.core.artifacts import remove_partials
from finseek.core.errors import ConfigError
from finseek.core.progress import Progress, silent
from finseek.model.imports import quiet_imports
from finseek.train.check.job import CheckReport
from finseek.train.engines.batches import GlobalBatches, StepBatch, TensorBatch
from finseek.train.engines.running import Run
from finseek.train.engines.settings import process_settings
from finseek.train.engines.trl.model import load_model, save_checkpoint
from finseek.train.job import TrainJob, TrainResult


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
            run = TrlRun(job, progress)
            if run.earlier is None and job.options.check:
                run.check().raise_if_failed()
            run.begin()
            return run.go()

    def check(self, job: TrainJob) -> CheckReport:
        """What is looked at before the first step of ``job``, which is not trained."""
        refuse(job)
        with _settings(job):
            return TrlRun(job, silent).check()


@contextmanager
def _settings(job: TrainJob) -> Iterator[None]:
    with quiet_imports():
        from finseek.train.engines.trl.trainer import quiet
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


class TrlRun(Run):
    """The run of a job in this process."""

    def __init__(self, job: TrainJob, progress: Progress) -> None:
        from finseek.train.engines.trl.trainer import StepTrainer

        super().__init__(job, progress)
        model, self.pad_id = load_model(job, self.prepared.encoder, self.bf16)
        self.trainer = StepTrainer(model, job, self.prepared.total, self.bf16, self._stop, self._stepped)

    def check(self) -> CheckReport:
        """What is looked at before the first step."""
        return self.prepared.check(self.trainer.subject())

    def train(self, batches: GlobalBatches) -> None:
        """See :class:`Run`."""
        self.trainer.train_on(batches)

    def evaluating(self) -> AbstractContextManager[dict[str, Tensor]]:
        """See :class:`Run`."""
        return nullcontext(self.trainer.trained_weights())

    def validation_sums(self, batches: list[TensorBatch]) -> tuple[float, float]:
        """See :class:`Run`."""
        return self.trainer.validation_sums(batches)

    def fill(self, weights: dict[str, Tensor]) -> None:
        """See :class:`Run`."""
        self.trainer.fill(weights)

    def fill_last(self) -> None:
        """They are in place."""

    def training_state(self) -> dict[str, Any]:
        """See :class:`Run`."""
        return self.trainer.training_state()

    def load_training_state(self, state: dict[str, Any]) -> None:
        """See :class:`Run`."""
        self.trainer.load_training_state(state)

    def export(self, name: str) -> None:
        """See :class:`Run`."""
        save_checkpoint(self.trainer.model, self.job.tokenizer, self.job.output / name)

    def _stepped(self, batch: StepBatch) -> None:
        self.after_step(batch, self.trainer.last | {"asked": self.preemption.asked is not None})

    def _stop(self, what: str) -> NoReturn:
        raise self.diverged(what)
