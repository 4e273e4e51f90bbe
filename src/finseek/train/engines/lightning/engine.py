"""Engine `lightning`: finseek's own DeepSeek-V3 under a Lightning Trainer, in one process or in many.

Lightning places the model, chooses the precision and runs the loop; the optimiser step, its place in the data, what
processes exchange and what is written are ours, so that a killed run goes on exactly where its last state was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from finseek.core.artifacts import remove_partials, write_text
from finseek.core.errors import ConfigError
from finseek.core.progress import Progress, silent
from finseek.train.engines.lightning.run import LightningRun
from finseek.train.engines.settings import process_settings
from finseek.train.job import TrainJob, TrainResult
from finseek.train.processes import run_processes

PROGRESS = "progress.json"


class LightningEngine:
    """Trains a :class:`finseek.model.DeepSeekV3`."""

    def run(self, job: TrainJob, progress: Progress = silent) -> TrainResult:
        """Train ``job``, or go on with it from the state that a killed process left in ``job.output``.

        Several devices are several processes, which are started here and end together. On a CPU the result is a
        function of the job alone (seed, layout and ``train.threads`` included).

        Raises:
            ConfigError: for a layout that this engine cannot run.
            InputError: for samples that cannot be trained on.
            FinseekError: when the loss is no longer finite, or a process fails.
        """
        refuse(job)
        remove_partials(job.output)
        if job.parallel.world_size == 1:
            return train(job, progress)
        return run_processes(f"{__name__}:run_rank", job, _follow(job.output / PROGRESS, progress))


def refuse(job: TrainJob) -> None:
    """Refuse what this engine does not have.

    Raises:
        ConfigError: naming the key.
    """
    options, parallel = job.options, job.parallel
    rules = (
        (parallel.context_parallel_size > 1, "parallel.context_parallel_size: engine lightning has none: set it to 1"),
        (options.load_in_4bit, "train.load_in_4bit: engine lightning keeps weights whole: use engine trl"),
        (options.unsloth, "train.unsloth: engine lightning has its own model: use engine trl"),
    )
    for broken, message in rules:
        if broken:
            raise ConfigError(message)


def train(job: TrainJob, progress: Progress) -> TrainResult:
    """This process's part of the job: all of it, or that of its rank in the open process group."""
    with process_settings(job.options.threads, job.seed):
        return LightningRun(job, progress).go()


def run_rank(job: TrainJob) -> TrainResult:
    """The part of one process that torchrun has started."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        result = train(job, _report(job.output / PROGRESS) if dist.get_rank() == 0 else silent)
        dist.barrier()
    finally:
        dist.destroy_process_group()
    (job.output / PROGRESS).unlink(missing_ok=True)
    return result


def _report(path: Path) -> Progress:
    def tell(label: str, done: float, total: float | None, unit: str) -> None:
        write_text(path, json.dumps([label, done, total, unit]))

    return tell


def _follow(path: Path, progress: Progress) -> Callable[[], None]:
    def follow() -> None:
        if path.exists():
            progress(*json.loads(path.read_text()))

    return follow
