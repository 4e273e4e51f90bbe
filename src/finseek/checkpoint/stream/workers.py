"""The conversion as a stream: workers read a strip of a tensor, transform it, hash it, write it.

Each worker has two buffers, so memory is workers x buffers whatever the size of shards and tensors. A tensor is the
work of one worker, so its hash is the plain one of its bytes; the output's place is known beforehand, so workers never
wait for each other.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from finseek.checkpoint.shards import TensorInfo
from finseek.checkpoint.stream.digest import fastest, new_hash
from finseek.checkpoint.stream.direct import PAGE, Bytes, Output, Reader, aligned, buffer
from finseek.core.errors import InputError

MiB = 1 << 20
LARGEST_STRIP = 8 * MiB  # of input; larger ones are no faster


class Transform(Protocol):
    """Turns units (rows or single numbers) of a tensor into bytes of one or more outputs.

    Attributes:
        units: how many the tensor has.
        step: a strip holds a multiple of this many units, but for the last.
        unit_in: bytes of a unit.
        unit_out: bytes that a unit takes in the first output.
    """

    units: int
    step: int
    unit_in: int
    unit_out: int

    def __call__(self, top: int, raw: Bytes, out: Bytes) -> list[Bytes]:
        """The next bytes of each output, for the units from `top` on; the first output's lie at the start of `out`."""


@dataclass(frozen=True)
class Task:
    """One tensor of the source and what becomes of it.

    Attributes:
        source: the tensor.
        transform: what is done to it.
        outputs: how many the transform has.
        algorithm: that outputs are hashed with.
    """

    source: TensorInfo
    transform: Transform
    outputs: int = 0
    algorithm: str = field(default_factory=fastest)


@dataclass(frozen=True)
class Done:
    """What a worker reports: bytes read, or a finished task with the digest of each output, or what went wrong."""

    task: Task
    nbytes: int = 0
    hashes: tuple[str, ...] | None = None
    error: BaseException | None = None


def strip_units(rule: Transform, strip: int) -> int:
    """Units of a strip of at most `strip` bytes of input and twice that of output, but `step` units at least."""
    per_unit = max(rule.unit_in, -(-rule.unit_out // 2), 1)
    return min(max(strip // per_unit // rule.step, 1) * rule.step, max(rule.units, 1))


@dataclass(frozen=True)
class Buffers:
    """What each worker holds: bytes of a strip, of the input buffer and of the output buffer."""

    strip: int
    into: int
    out: int


def size_buffers(tasks: Iterable[Task], workers: int, memory: int) -> Buffers:
    """Buffers for these tasks, within `memory` for all workers.

    Raises:
        InputError: even the smallest strip of some tensor does not fit.
    """
    strip = min(LARGEST_STRIP, memory // workers // 4)
    into = out = 0
    for task in tasks:
        rows = strip_units(task.transform, strip)
        into, out = max(into, rows * task.transform.unit_in), max(out, rows * task.transform.unit_out)
    sizes = Buffers(strip, aligned(into) + 2 * PAGE, aligned(out) + PAGE)
    needed = workers * (sizes.into + sizes.out)
    if needed > memory:
        raise InputError(
            f"{workers} workers need {needed / MiB:.1f} MiB of buffers for the widest tensor, and {memory / MiB:.1f} "
            "MiB are left to them: allow more memory or fewer workers"
        )
    return sizes


class Workers:
    """Threads that carry out tasks; results come back in the order of completion."""

    def __init__(self, reader: Reader, workers: int, buffers: Buffers, start: Callable[[], None]) -> None:
        self.reader, self.buffers, self.start = reader, buffers, start
        self.tasks: queue.SimpleQueue[tuple[Task, Output | None, tuple[int, ...]] | None] = queue.SimpleQueue()
        self.results: queue.SimpleQueue[Done] = queue.SimpleQueue()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self.threads:
            thread.start()

    def put(self, task: Task, output: Output | None, begins: tuple[int, ...]) -> None:
        """Hand a task over; its outputs begin at these bytes of `output`."""
        self.tasks.put((task, output, begins))

    def stop(self) -> None:
        """Let the workers finish their strip, and wait for them."""
        self.stopping.set()
        for _ in self.threads:
            self.tasks.put(None)
        for thread in self.threads:
            thread.join()

    def _work(self) -> None:
        self.start()
        into, out = buffer(self.buffers.into), buffer(self.buffers.out)
        while (item := self.tasks.get()) is not None and not self.stopping.is_set():
            task, output, begins = item
            try:
                hashes = self._convert(task, output, begins, into, out)
                self.results.put(Done(task, hashes=hashes))
            except BaseException as error:
                self.results.put(Done(task, error=error))

    def _convert(
        self, task: Task, output: Output | None, begins: tuple[int, ...], into: Bytes, out: Bytes
    ) -> tuple[str, ...]:
        rule, source = task.transform, task.source
        hashes = [new_hash(task.algorithm) for _ in range(task.outputs)]
        at = list(begins)
        rows = strip_units(rule, self.buffers.strip)
        for top in range(0, rule.units, rows):
            if self.stopping.is_set():
                break
            n = min(rows, rule.units - top) * rule.unit_in
            raw = self.reader.read(source.shard, source.begin + top * rule.unit_in, n, into)
            for k, piece in enumerate(rule(top, raw, out)):
                hashes[k].update(piece.data)
                if output is not None:
                    output.write(piece, at[k])
                at[k] += piece.nbytes
            self.results.put(Done(task, nbytes=n))
        return tuple(f"{task.algorithm}:{held.hexdigest()}" for held in hashes)


@contextmanager
def working(
    reader: Reader, workers: int, buffers: Buffers, start: Callable[[], None] = lambda: None
) -> Iterator[Workers]:
    """Workers that are stopped at the end, however it comes."""
    crew = Workers(reader, workers, buffers, start)
    try:
        yield crew
    finally:
        crew.stop()
