"""Engine `automodel`: NVIDIA NeMo AutoModel 0.7 trains, in processes of its own, on the samples and steps of finseek.

The first process writes the samples as arrays and AutoModel's recipe as YAML, starts the others under torchrun, turns
AutoModel's log into train_log.jsonl while it grows, and collects the checkpoint. A killed run goes on from AutoModel's
last checkpoint.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from finseek.core.artifacts import atomic_folder, remove_partials, write_text
from finseek.core.errors import MissingPart
from finseek.core.progress import Progress, silent
from finseek.train.engines.automodel.data import TRAINING, VALIDATION, write_arrays
from finseek.train.engines.automodel.log import LogFollower
from finseek.train.engines.automodel.recipe import FOLDER, RECIPE, Machine, recipe_text
from finseek.train.engines.automodel.rules import check_job_for_automodel
from finseek.train.engines.prepared import prepare
from finseek.train.job import TrainJob, TrainResult
from finseek.train.processes import run_processes
from finseek.train.state import CHECKPOINT, LOG, describe, fingerprint
from finseek.train.tracking import trackers

FINGERPRINT = "fingerprint"
WORKER = "finseek.train.engines.automodel.worker:train_rank"


class AutoModelEngine:
    """Trains a DeepSeek-V3 in NeMo AutoModel."""

    def __init__(self) -> None:
        if find_spec("nemo_automodel") is None:
            raise MissingPart("nemo_automodel", "nemo", "train.engine automodel")

    def run(self, job: TrainJob, progress: Progress = silent) -> TrainResult:
        """Train ``job``, or go on with it from AutoModel's last checkpoint in ``job.output``.

        Raises:
            ConfigError: for what AutoModel 0.7 cannot do with this model.
            InputError: for samples that cannot be trained on.
            FinseekError: the first error of a process.
        """
        machine = Machine.here()
        check_job_for_automodel(job, machine)
        folder, mark = job.output / FOLDER, fingerprint(job)
        remove_partials(job.output)
        if not _belongs(folder, mark):
            shutil.rmtree(folder, ignore_errors=True)
        prepared = prepare(job, progress)
        start = job.init.path or folder / "initial"
        if not _belongs(folder, mark):
            write_arrays(folder / TRAINING, prepared.training, job.options.answer_only_loss)
            write_arrays(folder / VALIDATION, prepared.validation, answer_only=True)
            if job.init.path is None:
                prepared.first_model().save_pretrained(start)
            write_text(folder / RECIPE, recipe_text(job, folder, start, prepared, machine))
            write_text(folder / FINGERPRINT, mark)
        attached = describe(job) | {"origin": job.origin}
        with trackers(job.tracking, job.output / "tracking", job.name, attached) as track:
            follower = LogFollower(folder / "checkpoints", job.output / LOG, prepared, track, progress)
            done = run_processes(WORKER, job, follower.look)
        _collect(done.checkpoint, job)
        shutil.rmtree(folder)
        at = follower.standing
        return replace(
            done,
            checkpoint=job.output / CHECKPOINT,
            log=job.output / LOG,
            tokens=at.tokens,
            best_step=at.best_step,
            best_validation_loss=at.best_validation_loss,
            seconds=at.seconds,
        )


def _belongs(folder: Path, mark: str) -> bool:
    place = folder / FINGERPRINT
    return place.is_file() and place.read_text() == mark


def _collect(found: Path, job: TrainJob) -> None:
    """Copy weights or adapter, and the tokenizer, into the checkpoint."""
    with atomic_folder(job.output / CHECKPOINT) as folder:
        for file in sorted([*found.iterdir(), *job.tokenizer.iterdir()]):
            if file.is_file():
                shutil.copyfile(file, folder / file.name)
