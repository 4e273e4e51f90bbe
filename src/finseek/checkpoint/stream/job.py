"""From tasks to a finished checkpoint folder: plan, check, stream, record, and resume where it stopped."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finseek.checkpoint.options import StreamOptions
from finseek.checkpoint.shards import CONFIG, INDEX, Checkpoint, TensorInfo
from finseek.checkpoint.stream.destination import check_space, copy_others, finished_before
from finseek.checkpoint.stream.direct import Output, Reader
from finseek.checkpoint.stream.ledger import JOURNALS, Entry, Journal, read_journals, write_ledger
from finseek.checkpoint.stream.plan import Out, ShardPlan, index_of, plan_shards
from finseek.checkpoint.stream.transforms import Copy, Look, not_finite
from finseek.checkpoint.stream.workers import Task, Workers, size_buffers, working
from finseek.core.artifacts import PARTIAL, remove_partials, write_json
from finseek.core.errors import FinseekError, InputError
from finseek.core.progress import Progress

OPEN_TASKS = 4  # for each worker: enough that none waits while a shard is synced


@dataclass(frozen=True)
class Step:
    """A source tensor, what is done to it, and what it becomes."""

    task: Task
    outs: tuple[Out, ...]


def unchanged(info: TensorInfo, stop: bool = False) -> Step:
    """The same tensor again."""
    return Step(Task(info, Copy(info, stop), 1), (Out(info.name, info.dtype, info.shape),))


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        folder: of the new checkpoint.
        tensors: in the new checkpoint.
        nbytes: of all its tensors.
        shards: its files.
        resumed: how many of them were there already.
        nonfinite: NaN or infinite numbers that came over from the source.
    """

    folder: Path
    tensors: int
    nbytes: int
    shards: int
    resumed: int
    nonfinite: int


@dataclass(frozen=True)
class Job:
    """A conversion, fully decided.

    Attributes:
        kind: its name, for progress and ledger.
        source: the old checkpoint.
        folder: of the new one.
        steps: in the order of the source.
        config: the new `config.json`.
        settings: what besides the source decides the result.
        scan: whether to look at all weights before writing.
        reserved: bytes of the allowed memory that are taken already (scales).
        stream: how the bytes flow.
    """

    kind: str
    source: Checkpoint
    folder: Path
    steps: Sequence[Step]
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    scan: bool
    reserved: int
    stream: StreamOptions

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the result."""
        cut = {"shard_bytes": self.stream.shard_bytes}
        return {"kind": self.kind, "source": self.source.fingerprint, **self.settings, **cut}


def run(job: Job, progress: Progress) -> Conversion:
    """Carry a job out, or what is left of it.

    Raises:
        InputError: the destination or the memory does not do, or a weight is not finite; nothing was written.
        FinseekError: the disk filled up or failed; what is finished stays, and `resume` continues.
    """
    stream = job.stream
    plans = plan_shards((step.outs for step in job.steps), stream.shard_bytes)
    finished = finished_before(job.folder, job.source.folder, job.identity, stream.resume, plans)
    if finished is not None:
        return _result(job, plans, finished, resumed=len(plans))
    done = whole_shards(job, plans)
    check_space(job.folder, sum(plan.length for plan in plans if plan.file not in done))
    buffers = size_buffers((step.task for step in job.steps), stream.workers, stream.memory - job.reserved)
    reader = Reader(job.source.folder, stream.direct)
    try:
        if job.scan and not done:
            _scan(job, reader, progress)
        stream.barrier()
        if stream.rank == 0:
            job.folder.mkdir(parents=True, exist_ok=True)
        stream.barrier()
        journal = Journal(job.folder, job.identity, stream.rank)
        try:
            stream.barrier()  # now every process holds its lock
            if stream.rank == 0:
                remove_partials(job.folder)
            stream.barrier()
            with working(reader, stream.workers, buffers, _one_torch_thread) as crew:
                _write(job, plans, done.keys(), journal, crew, progress)
        finally:
            journal.close()
        stream.barrier()
        entries = read_journals(job.folder, job.identity)
        if stream.rank == 0:
            _finalise(job, plans, entries)
        stream.barrier()
    except OSError as error:
        raise _disk(job, error) from error
    finally:
        reader.close()
    return _result(job, plans, [entry for held in entries.values() for entry in held], resumed=len(done))


def whole_shards(job: Job, plans: Sequence[ShardPlan]) -> dict[str, list[Entry]]:
    """What the journals record as finished and still lies there at full length; the rest is done again."""
    recorded = read_journals(job.folder, job.identity)
    lengths = {path.name: path.stat().st_size for path in job.folder.glob("*.safetensors")}
    return {p.file: recorded[p.file] for p in plans if p.file in recorded and lengths.get(p.file) == p.length}


def _one_torch_thread() -> None:
    """Workers are the parallelism; torch's own threads below them only wait for each other."""
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _scan(job: Job, reader: Reader, progress: Progress) -> None:
    """Look at every weight of this process' share.

    Raises:
        InputError: one is NaN or infinite.
    """
    mine = list(job.steps)[job.stream.rank :: job.stream.world]
    tasks = [Task(step.task.source, Look(step.task.source, stop=False)) for step in mine]
    total, seen = float(sum(task.source.nbytes for task in tasks)), 0
    buffers = size_buffers(tasks, job.stream.workers, job.stream.memory - job.reserved)
    with working(reader, job.stream.workers, buffers) as crew:
        for task in tasks:
            crew.put(task, None, ())
        left = len(tasks)
        while left:
            done = crew.results.get()
            if done.error is not None:
                raise done.error
            left -= done.hashes is not None
            seen += done.nbytes
            progress("look for NaN", float(seen), total, "B")
    bad = [task for task in tasks if task.transform.count]  # type: ignore[attr-defined]
    if bad:
        more = f" ({len(bad)} such tensors)" if len(bad) > 1 else ""
        raise InputError(not_finite(bad[0].source, bad[0].transform.count) + more)  # type: ignore[attr-defined]


def _write(
    job: Job, plans: Sequence[ShardPlan], done: Set[str], journal: Journal, crew: Workers, progress: Progress
) -> None:
    """Stream this process' shards; each is synced, named and recorded when its last tensor is there."""
    stream = job.stream
    mine = {p.file: p for k, p in enumerate(plans) if k % stream.world == stream.rank and p.file not in done}
    home = {name: plan.file for plan in plans for name in plan.begins}
    todo = [step for step in job.steps if home[step.outs[0].name] in mine]
    left = Counter(home[step.outs[0].name] for step in todo)
    total, seen, waiting = float(sum(step.task.source.nbytes for step in todo)), 0, 0
    outputs: dict[str, Output] = {}
    entries: dict[str, list[Entry]] = {}
    of_task = {id(step.task): step for step in todo}
    feed: Iterator[Step] = iter(todo)
    try:
        while True:
            while waiting < OPEN_TASKS * stream.workers and (step := next(feed, None)) is not None:
                plan = mine[home[step.outs[0].name]]
                if plan.file not in outputs:
                    outputs[plan.file] = open_shard(job.folder, plan, stream.direct)
                crew.put(step.task, outputs[plan.file], tuple(plan.begins[out.name] for out in step.outs))
                waiting += 1
            if not waiting:
                return
            said = crew.results.get()
            if said.error is not None:
                raise said.error
            seen += said.nbytes
            progress(job.kind, float(seen), total, "B")
            if said.hashes is None:
                continue
            waiting -= 1
            step = of_task[id(said.task)]
            file = home[step.outs[0].name]
            entries.setdefault(file, []).extend(_entries(step, file, said.hashes))
            left[file] -= 1
            if not left[file]:
                outputs[file].finish()
                del outputs[file]
                place = {name: k for k, name in enumerate(mine[file].begins)}
                journal.finish(file, sorted(entries.pop(file), key=lambda entry: place[entry.name]))
    finally:
        crew.stop()
        for output in outputs.values():
            output.discard()


def open_shard(folder: Path, plan: ShardPlan, direct: bool) -> Output:
    """A new file under a temporary name, its header written."""
    output = Output(folder / plan.file, folder / f".{plan.file}{PARTIAL}", plan.length, direct)
    output.write(np.frombuffer(plan.header, np.uint8), 0)
    return output


def _entries(step: Step, file: str, hashes: tuple[str, ...]) -> Iterator[Entry]:
    source, count = step.task.source, getattr(step.task.transform, "count", 0)
    for out, digest in zip(step.outs, hashes, strict=True):
        yield Entry(out.name, out.dtype, out.shape, file, digest, source.name, source.shard, source.dtype, count)


def _finalise(job: Job, plans: list[ShardPlan], done: Mapping[str, list[Entry]]) -> None:
    """Index, config, tokenizer and code files, and last the ledger; then the journals go."""
    if (index := index_of(plans)) is not None:
        write_json(job.folder / INDEX, index)
    copy_others(job.source.folder, job.folder)
    if job.config:
        write_json(job.folder / CONFIG, job.config)
    write_ledger(job.folder, job.identity, (entry for plan in plans for entry in done[plan.file]))
    for journal in job.folder.glob(JOURNALS):
        journal.unlink()


def _disk(job: Job, error: OSError) -> FinseekError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FinseekError(f"{job.folder}: the disk is full; free some space and run again with --resume")
    return FinseekError(f"{error.filename or job.folder}: {error.strerror or error}; run again with --resume")


def _result(job: Job, plans: Sequence[ShardPlan], entries: Sequence[Entry], resumed: int) -> Conversion:
    outs = [out for step in job.steps for out in step.outs]
    bad = {entry.source: entry.nonfinite for entry in entries}
    total = sum(out.nbytes for out in outs)
    return Conversion(job.folder, len(outs), total, len(plans), resumed, sum(bad.values()))
