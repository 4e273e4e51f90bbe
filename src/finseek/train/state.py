"""What a killed run leaves: its resume state and its log up to there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from finseek.core.artifacts import atomic_file, sha256_file, sha256_json
from finseek.train.job import TrainJob

STATE_FORMAT = 1  # raise it when what a state holds changes
STATE, BEST, LOG, CHECKPOINT = "resume.pt", "best.pt", "train_log.jsonl", "checkpoint"
TIME_FIELDS = ("seconds", "tokens_per_second")


def describe(job: TrainJob) -> dict[str, Any]:
    """Everything that the result depends on, as plain values; large inputs by their hash."""
    weights = sorted(job.init.path.glob("*.safetensors")) if job.init.path else []
    return {
        "state_format": STATE_FORMAT,
        "training": sha256_file(job.training),
        "validation": sha256_file(job.validation),
        "tokenizer": sha256_file(job.tokenizer / "tokenizer.json"),
        "template": job.template,
        "preset": job.init.preset,
        "weights": [[path.name, path.stat().st_size] for path in weights],
        "overrides": dict(job.init.overrides),
        "options": job.options.model_dump(mode="json"),
        "parallel": job.parallel.model_dump(mode="json"),
        "seed": job.seed,
        "torch": torch.__version__,
    }


def fingerprint(job: TrainJob) -> str:
    """SHA-256 of :func:`describe`, so that no state of another job is taken up."""
    return sha256_json(describe(job))


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, whole or not at all."""
    with atomic_file(path) as partial:
        torch.save(state, partial)


def load_state(path: Path, job_fingerprint: str) -> dict[str, Any] | None:
    """The state at ``path`` if it exists and belongs to the same job."""
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state if state["fingerprint"] == job_fingerprint else None


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
