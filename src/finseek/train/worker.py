"""One process of a job: `torchrun … -m finseek.train.worker FOLDER` (see :mod:`finseek.train.processes`)."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from pathlib import Path

from finseek.core.artifacts import read_json, write_json
from finseek.train.job import TrainJob
from finseek.train.preemption import Preemption
from finseek.train.processes import JOB, RESULT, describe_error, watch


def main(folder: Path) -> None:
    """Run the target that the folder's job names; what it raises is left in the folder for the engine's process."""
    rank = int(os.environ["RANK"])
    watch(folder, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        with Preemption():  # so that an early signal does not end it
            work = read_json(folder / JOB)
            module, function = work["target"].split(":")
            result = getattr(import_module(module), function)(TrainJob.from_json(work["job"]))
    except BaseException as error:
        write_json(folder / f"error-{rank}.json", describe_error(error, rank))
        raise
    if rank == 0:
        write_json(folder / RESULT, result.to_json())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
