"""What a killed run leaves: the states of all its processes after some step, and its log up to there.

A state is a folder ``states/step-N`` with a file for each process. Files are written beside their place by a thread,
while training goes on; the folder gets its name when all files are there, so that a state is whole or not there.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finseek.core.artifacts import PARTIAL, atomic_file, probe_file, sha256_file, sha256_json
from finseek.samples.tokenizer import TOKENIZER_FILES
from finseek.train.job import TrainJob

STATE_FORMAT = 2  # raise it when what a state holds changes
STATES, BEST, LOG, CHECKPOINT, LAST_GOOD = "states", "best", "train_log.jsonl", "checkpoint", "last_good"
TIME_FIELDS = ("seconds", "tokens_per_second", "mfu", "memory_gib")
POLL_SECONDS = 0.02


def describe(job: TrainJob) -> dict[str, Any]:
    """Everything that the result depends on, as plain values; large inputs by their hash."""
    base = job.init.path
    first = [base / "config.json", *sorted(base.glob("*.safetensors"))] if base else []
    return {
        "state_format": STATE_FORMAT,
        "training": sha256_file(job.training),
        "validation": sha256_file(job.validation),
        "tokenizer": [sha256_file(file) for name in TOKENIZER_FILES if (file := job.tokenizer / name).is_file()],
        "template": job.template,
        "preset": job.init.preset,
        "weights": [[path.name, path.stat().st_size, probe_file(path)] for path in first if path.is_file()],
        "overrides": dict(job.init.overrides),
        "options": job.options.model_dump(mode="json"),
        "parallel": job.parallel.model_dump(mode="json"),
        "seed": job.seed,
        "torch": torch.__version__,
    }


def fingerprint(job: TrainJob) -> str:
    """SHA-256 of :func:`describe`, so that no state of another job is taken up."""
    return sha256_json(describe(job))


def snapshot(value: Any) -> Any:
    """A copy on the CPU of nested dicts with tensors, which no later step changes."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: snapshot(each) for key, each in value.items()}
    return value


class StateWriter:
    """Writes the states of this process among others, one at a time, while training goes on.

    Args:
        folder: output of the job, in which all processes write.
        rank: of this process; the first gives a whole state its name.
        world: how many processes there are.
        keep: newest states that stay.
    """

    def __init__(self, folder: Path, rank: int = 0, world: int = 1, keep: int = 1) -> None:
        self.folder, self.rank, self.world, self.keep = folder, rank, world, keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def write(self, name: str, state: dict[str, Any]) -> None:
        """Take a copy of ``state``, and write it as ``name`` below the folder; waits for the write before.

        Raises:
            OSError: if that one failed.
        """
        self.wait()
        self._thread = threading.Thread(target=self._work, args=(self.folder / name, snapshot(state)), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until what was written has its name.

        Raises:
            OSError: if it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def _work(self, place: Path, state: dict[str, Any]) -> None:
        partial = place.with_name(f".{place.name}{PARTIAL}")
        try:
            partial.mkdir(parents=True, exist_ok=True)
            with atomic_file(partial / _file(self.rank)) as file:
                torch.save(state, file)
            if self.rank == 0:
                while not all((partial / _file(rank)).exists() for rank in range(self.world)):
                    time.sleep(POLL_SECONDS)  # a process that dies ends all, this one too
                old = place.with_name(f".{place.name}.old{PARTIAL}")
                if place.exists():
                    place.rename(old)
                partial.rename(place)
                shutil.rmtree(old, ignore_errors=True)
                keep = self.keep if place.parent.name == STATES else 1
                for stale in states(place.parent)[:-keep]:
                    shutil.rmtree(stale, ignore_errors=True)
            else:
                while partial.exists():
                    time.sleep(POLL_SECONDS)
        except BaseException as error:
            self._error = error


def _file(rank: int) -> str:
    return f"rank-{rank}.pt"


def states(folder: Path) -> list[Path]:
    """What was written whole into a folder of states, oldest first."""
    found = folder.glob("step-*")
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def load_file(folder: Path, rank: int) -> dict[str, Any]:
    """What a process wrote into a state."""
    content: dict[str, Any] = torch.load(folder / _file(rank), map_location="cpu", weights_only=True)
    return content


def newest_state(folder: Path, job_fingerprint: str, rank: int = 0) -> dict[str, Any] | None:
    """A process's part of the newest state that belongs to the same job, or None."""
    for path in reversed(states(folder / STATES)):
        state = load_file(path, rank)
        if state["fingerprint"] == job_fingerprint:
            return state
    return None


class TrainLog:
    """train_log.jsonl: appended line by line, cut back to the resumed state's length.

    Args:
        path: the file.
        length: bytes to keep, 0 for a new log.
    """

    def __init__(self, path: Path, length: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("r+b" if length else "wb")
        self._file.truncate(length)
        self._file.seek(length)

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; time fields come last, so that two logs compare by what is before them."""
        timeless = {key: value for key, value in line.items() if key not in TIME_FIELDS}
        times = {key: line[key] for key in TIME_FIELDS}
        self._file.write(json.dumps(timeless | times, allow_nan=False).encode() + b"\n")
        self._file.flush()

    @property
    def length(self) -> int:
        """Bytes written."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
