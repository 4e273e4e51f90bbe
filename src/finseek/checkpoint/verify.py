"""Is a converted checkpoint what it should be? Against its ledger, and against its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from finseek.checkpoint.dequantize import dequantize_job
from finseek.checkpoint.options import DequantizeOptions, QuantizeOptions, StreamOptions
from finseek.checkpoint.quantize import FMT, quantize_job
from finseek.checkpoint.shards import Checkpoint, read_checkpoint
from finseek.checkpoint.stream.digest import algorithm_of
from finseek.checkpoint.stream.direct import Reader
from finseek.checkpoint.stream.job import Job, Step, unchanged
from finseek.checkpoint.stream.ledger import Ledger, read_ledger
from finseek.checkpoint.stream.plan import Out
from finseek.checkpoint.stream.workers import size_buffers, working
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
        against: the checkpoint that it was made from: names, shapes and every number are derived again.
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
    stream = (options or DequantizeOptions()).stream
    if ledger is not None:
        _compare_headers(made, [Out(e.name, e.dtype, e.shape) for e in ledger.entries.values()])
    rng = np.random.default_rng(seed)
    names = {name for name in made.tensors if sample == 1 or rng.random() < sample} or {next(iter(made.tensors))}
    steps = [unchanged(info) for info in made.tensors.values() if info.name in names]
    hashes = _hash(made.folder, _as_recorded(steps, ledger), stream, 0, "verify", progress)
    if ledger is not None:
        _differ(folder, "its ledger", [name for name in hashes if hashes[name] != ledger.entries[name].digest])
    if against is not None:
        source = read_checkpoint(against)
        job = _job_again(source, Path(folder), ledger, options or DequantizeOptions())
        _compare_headers(made, [out for step in job.steps for out in step.outs])
        steps = [step for step in job.steps if any(out.name in names for out in step.outs)]
        again = _hash(source.folder, _as_recorded(steps, ledger), stream, job.reserved, "convert again", progress)
        _differ(folder, f"what {against} gives", [name for name in hashes if hashes[name] != again[name]])
        if ledger is not None and ledger.job["source"] != source.fingerprint:
            raise ArtifactError(f"{folder} was made from another checkpoint than {against}: their shards differ")
    nbytes = sum(made.tensors[name].nbytes for name in names)
    return Verification(len(names), len(made.tensors), nbytes, ledger is not None, against is not None)


def _job_again(source: Checkpoint, folder: Path, ledger: Ledger | None, options: DequantizeOptions) -> Job:
    """The conversion that the ledger tells of, or that `options` do.

    Raises:
        InputError: it had more than one source.
    """
    if ledger is None:
        return dequantize_job(source, folder, options)
    made = ledger.job
    if made["kind"] == "dequantize":
        return dequantize_job(source, folder, replace(options, dtype=made["dtype"], mtp=made["mtp"], on_nan="keep"))
    if made["kind"] == "quantize":
        fmt, (height, width) = (made["quantization_config"][key] for key in ("fmt", "weight_block_size"))
        return quantize_job(source, folder, QuantizeOptions(FMT[fmt], (height, width), stream=options.stream))
    raise InputError(
        f"{folder} is an {made['kind']}, which has no one source; leave --against out: its ledger suffices"
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


def _as_recorded(steps: Sequence[Step], ledger: Ledger | None) -> list[Step]:
    """Steps that hash with the algorithm of the ledger's entry, whatever is the fastest here."""
    if ledger is None:
        return list(steps)
    recorded = ledger.entries
    return [
        replace(step, task=replace(step.task, algorithm=algorithm_of(recorded[step.outs[0].name].digest)))
        for step in steps
    ]


def _hash(
    folder: Path, steps: Sequence[Step], stream: StreamOptions, reserved: int, label: str, progress: Progress
) -> dict[str, str]:
    """The digest of each output of each step, by the output's name; nothing is written."""
    buffers = size_buffers((step.task for step in steps), stream.workers, stream.memory - reserved)
    total, seen = float(sum(step.task.source.nbytes for step in steps)), 0
    step_of = {id(step.task): step for step in steps}
    reader, left = Reader(folder, stream.direct), len(steps)
    hashes: dict[str, str] = {}
    try:
        with working(reader, stream.workers, buffers) as crew:
            for step in steps:
                crew.put(step.task, None, (0,) * len(step.outs))
            while left:
                done = crew.results.get()
                if done.error is not None:
                    raise done.error
                seen += done.nbytes
                progress(label, float(seen), total, "B")
                if done.hashes is not None:
                    left -= 1
                    names = (out.name for out in step_of[id(done.task)].outs)
                    hashes |= dict(zip(names, done.hashes, strict=True))
    finally:
        reader.close()
    return hashes
