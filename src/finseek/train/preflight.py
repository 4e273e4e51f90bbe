"""The checks before training, alone: nothing is trained, and nothing is left behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from finseek.train.check.job import CheckReport
from finseek.train.engines.first import adapters
from finseek.train.engines.prepared import prepare
from finseek.train.engines.settings import process_settings
from finseek.train.job import TrainJob


def check_training(job: TrainJob) -> CheckReport:
    """Look at a job as its engine does before the first step; automodel and megatron by finseek's own model.

    Raises:
        ConfigError, InputError: for what the engine would refuse before it looks.
    """
    with TemporaryDirectory() as folder:
        job = replace(job, output=Path(folder) / "run" / "train")
        if job.options.engine == "trl":
            from finseek.train.engines.trl.engine import TrlEngine

            return TrlEngine().check(job)
        with process_settings(job.options.threads, job.seed):
            prepared = prepare(job)
            model = prepared.first_model()
            adapters(model, job)
            return prepared.check(model)
