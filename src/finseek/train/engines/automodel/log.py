"""AutoModel's log as train_log.jsonl, while it grows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from finseek.core.artifacts import write_lines
from finseek.core.progress import Progress
from finseek.train.engines.prepared import Prepared
from finseek.train.schedule import learning_rate
from finseek.train.standing import Reached
from finseek.train.tracking import Sink

GIB = "memory_gib"
# Of a line of train_log.jsonl, what AutoModel does not tell.
UNKNOWN = ("action_loss", "mtp_loss", "balance_loss", "validation_action_loss", "router_load_max", "router_load_min")


class LogFollower:
    """Reads training.jsonl and validation.jsonl of a run and writes train_log.jsonl.

    Args:
        folder: that AutoModel writes to.
        log: train_log.jsonl.
        prepared: samples and steps of the job, from which tokens are counted as in every engine.
        track: told each new line.
        progress: told each new step.
    """

    def __init__(self, folder: Path, log: Path, prepared: Prepared, track: Sink, progress: Progress) -> None:
        self.folder, self.log = folder, log
        self.options, self.plan, self.total = prepared.job.options, prepared.plan, prepared.total
        self.track, self.progress = track, progress
        self.standing = Reached()
        self._size, self._told = -1, 0
        self._tokens: list[int] = []

    def look(self) -> None:
        """Read what was added since the last look."""
        files = [self.folder / name for name in ("training.jsonl", "validation.jsonl")]
        size = sum(file.stat().st_size for file in files if file.exists())
        if size == self._size:
            return
        self._size = size
        training, validation = (_records(file) for file in files)
        lines = self._lines(training, validation)
        if lines:
            write_lines(self.log, (json.dumps(line, allow_nan=False).encode() for line in lines))
        for line in lines:
            if line["step"] > self._told:
                self.track(line, line["step"])
                self._told = line["step"]
        self.progress("train", self.standing.step, self.total, "steps")

    def _tokens_of(self, steps: int) -> list[int]:
        for _, rows in self.plan.steps(len(self._tokens), steps):
            self._tokens.append(int(self.plan.lengths[rows].sum()))
        return self._tokens

    def _lines(self, training: Mapping[int, Any], validation: Mapping[int, Any]) -> list[dict[str, Any]]:
        at, lines = Reached(), []
        loss = weight = 0.0
        begun = Reached()
        tokens = self._tokens_of(max(training, default=-1) + 1)
        for step, record in sorted(training.items()):
            at.step = step + 1
            at.tokens += tokens[step]
            at.seconds += record["num_tokens_per_step"] / record["tps"] if record["tps"] else 0.0
            loss += record["loss"] * record["num_label_tokens"]
            weight += record["num_label_tokens"]
            seen = validation.get(step)
            if seen and seen["val_loss"] < at.best_validation_loss:
                at.best_step, at.best_validation_loss = at.step, seen["val_loss"]
            if seen or at.step % self.options.log_every_n_steps == 0:
                seconds = max(at.seconds - begun.seconds, 1e-9)
                known = {
                    "step": at.step,
                    "epoch": step // self.plan.steps_per_epoch,
                    "tokens": at.tokens,
                    "loss": loss / weight,
                    "validation_loss": seen["val_loss"] if seen else None,
                    "learning_rate": self._rate(training, step),
                    "grad_norm": record["grad_norm"],
                    "seconds": round(at.seconds, 3),
                    "tokens_per_second": round((at.tokens - begun.tokens) / seconds, 1),
                    "mfu": record.get("mfu"),
                    GIB: round(record["mem"], 3),
                }
                lines.append(known | dict.fromkeys(UNKNOWN))
                loss = weight = 0.0
                begun = Reached(at.step, at.tokens, at.seconds)
        self.standing = at
        return lines

    def _rate(self, training: Mapping[int, Any], step: int) -> float:
        """The rate of a step; AutoModel notes that of the next one."""
        if step:
            return float(training[step - 1]["lr"])
        return learning_rate(0, self.total, self.options)


def _records(file: Path) -> dict[int, dict[str, Any]]:
    """Whole lines by step, the last of each: a resumed run takes some steps again."""
    if not file.exists():
        return {}
    lines = file.read_bytes().split(b"\n")[:-1]
    return {record["step"]: record for record in map(orjson.loads, lines)}
