"""What the processes of `test_processes` do."""

from __future__ import annotations

import os
import time
from pathlib import Path

from finseek.core.errors import ConfigError, FinseekError
from finseek.train import TrainJob, TrainResult
from finseek.train.preemption import Preemption


def count(job: TrainJob) -> TrainResult | None:
    """Meet the others through files; rank 0 tells how many there were."""
    (job.output / f"met-{os.environ['RANK']}").write_text(os.environ["WORLD_SIZE"])
    return TrainResult(job.output, job.output / "log", int(os.environ["WORLD_SIZE"]), 0, 0, 0.0, 0.0)


def fail_in_rank_1(job: TrainJob) -> TrainResult | None:
    """Rank 1 fails, rank 0 would wait for ever."""
    if os.environ["RANK"] == "1":
        raise ConfigError("train.seq_length 7 is bad: make it 8")
    time.sleep(600)
    return None


def crash_in_rank_0(job: TrainJob) -> TrainResult | None:
    """An error that is none of ours."""
    if os.environ["RANK"] == "0":
        raise RuntimeError("out of\nmemory")
    time.sleep(600)
    return None


def killed(job: TrainJob) -> TrainResult | None:
    """As the kernel does when memory is short."""
    os.kill(os.getpid(), 9)
    return None


def until_asked(job: TrainJob) -> TrainResult | None:
    """Work until the signal, then leave a state."""
    with Preemption() as preemption:
        (job.output / f"working-{os.environ['RANK']}-{os.getpid()}").touch()
        while not preemption.asked:
            time.sleep(0.05)
    Path(job.output / f"saved-{os.environ['RANK']}").touch()
    raise FinseekError(f"training stopped by {preemption.asked} after step 3 of 9")
