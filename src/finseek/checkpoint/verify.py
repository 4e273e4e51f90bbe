"""Is a converted checkpoint what it should be? Against its ledger, and against its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from finseek.checkpoint.dequantize import dequantize_job
from finseek.checkpoint.options import DequantizeOptions, StreamOptions
from finseek.checkpoint.shards import Checkpoint, read_checkpoint
from finseek.checkpoint.stream.direct import Reader
from finseek.checkpoint.stream.ledger import read_ledger
from finseek.checkpoint.stream.plan import Out
from finseek.checkpoint.stream.transforms import Copy
from finseek.checkpoint.stream.workers import Task, size_buffers, working
from finseek.core.errors import ArtifactError, InputError
from finseek.core.progress import Progress, silent


@dataclass(frozen=True)
class Verification:
    """What was checked.

    Attributes:
        tensors: how many were hashed.
        of: how many there are.
        nbytes: of the tensors that were hashed.
        ledger: whether they were held against a ledger.
        source: whether they were converted again and compared.
    """

    tensors: int
    of: int
    nbytes: int
    ledger: bool
    source: bool


def verify_checkpoint(
    folder: str | Path,
    against: str | Path | None = None,
    sample: float = 1.0,
    seed: int = 0,
    options: DequantizeOptions | None = None,
    progress: Progress = silent,
) -> Verification:
    """Hash the tensors of a checkpoint, and compare them with its ledger, with its source, or with both.

    Args:
        folder: the converted checkpoint.
        against: the FP8 checkpoint that it was made from: names, shapes and every number are derived again.
        sample: share of the tensors to hash (names and shapes are always compared in full).
        seed: of the sample.
        options: how it was converted, if it has no ledger that says so.
        progress: told of bytes hashed.

    Raises:
        InputError: there is neither a ledger nor a source, or the sample is no share.
        ArtifactError: a tensor is missing, superfluous or different; names the first ones.
    """
    if not 0 < sample <= 1:
        raise InputError(f"sample {sample} is no share of the tensors: it must be in (0, 1]")
    made, ledger = read_checkpoint(folder), read_ledger(Path(folder))
    if ledger is None and against is None:
        raise InputError(f"{folder} has no ledger to be held against; give the source with --against")
    options = options or DequantizeOptions()
    if ledger is not None:
        _compare_headers(made, [Out(e.name, e.dtype, e.shape) for e in ledger.entries.values()])
        if ledger.job["kind"] == "dequantize":
            options = replace(options, dtype=ledger.job["dtype"], mtp=ledger.job["mtp"], on_nan="keep")
    rng = np.random.default_rng(seed)
    names = [name for name in made.tensors if sample == 1 or rng.random() < sample]
    names = names or [next(iter(made.tensors))]
    tasks = {name: Task(made.tensors[name], Copy(made.tensors[name], stop=False), 1) for name in names}
    hashes = _hash(made.folder, tasks, options.stream, 0, "verify", progress)
    if ledger is not None:
        _differ(folder, "its ledger", [n for n in names if hashes[n] != ledger.entries[n].sha256])
    if against is not None:
        source = read_checkpoint(against)
        job = dequantize_job(source, Path(folder), options)
        if ledger is not None and ledger.job["source"] != source.fingerprint:
            raise ArtifactError(f"{folder} was made from another checkpoint than {against}: their headers differ")
        _compare_headers(made, [out for step in job.steps for out in step.outs])
        tasks = {step.outs[0].name: step.task for step in job.steps if step.outs[0].name in tasks}
        again = _hash(source.folder, tasks, options.stream, job.reserved, "convert again", progress)
        _differ(folder, f"what {against} gives", [name for name in names if hashes[name] != again[name]])
    return Verification(
        len(names),
        len(made.tensors),
        sum(made.tensors[name].nbytes for name in names),
        ledger is not None,
        against is not None,
    )


def _compare_headers(made: Checkpoint, expected: Sequence[Out]) -> None:
    due = {out.name: (out.dtype, tuple(out.shape)) for out in expected}
    faults = [f"{name} is missing" for name in due if name not in made.tensors]
    faults += [f"{name} does not belong" for name in made.tensors if name not in due]
    for name, info in made.tensors.items():
        if name in due and (info.dtype, info.shape) != due[name]:
            faults.append(f"{name} is {info.dtype} {list(info.shape)}, not {due[name][0]} {list(due[name][1])}")
    if faults:
        raise ArtifactError(f"{made.folder}: {len(faults)} tensors differ: {'; '.join(faults[:5])}")


def _differ(folder: str | Path, what: str, names: Sequence[str]) -> None:
    if names:
        listed = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        raise ArtifactError(f"{folder}: the numbers of {len(names)} tensors differ from {what}: {listed}")


def _hash(
    folder: Path, tasks: Mapping[str, Task], stream: StreamOptions, reserved: int, label: str, progress: Progress
) -> dict[str, str]:
    """SHA-256 of the first output of each task, by the task's name; nothing is written."""
    buffers = size_buffers(tasks.values(), stream.workers, stream.memory - reserved)
    total, seen = float(sum(task.source.nbytes for task in tasks.values())), 0
    name_of = {id(task): name for name, task in tasks.items()}
    reader, hashes = Reader(folder, stream.direct), {}
    try:
        with working(reader, stream.workers, buffers) as crew:
            for task in tasks.values():
                crew.put(task, None, (0,) * task.outputs)
            while len(hashes) < len(tasks):
                done = crew.results.get()
                if done.error is not None:
                    raise done.error
                seen += done.nbytes
                progress(label, float(seen), total, "B")
                if done.hashes is not None:
                    hashes[name_of[id(done.task)]] = done.hashes[0]
    finally:
        reader.close()
    return hashes
