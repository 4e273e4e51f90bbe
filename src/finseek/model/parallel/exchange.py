"""Expert parallelism: rows travel to the process that owns their expert, and back to their old places.

M rows here   P processes   E experts, E/P on each   D hidden
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from finseek.model.experts import Compute
from finseek.model.grouped import Dispatch, inverse_of


class Trip:
    """An all-to-all under way: rows (Σ send, D) go in pieces to all processes, (Σ receive, D) come from them.

    What is computed between `depart` and `arrive` overlaps with it; in the backward pass, where the gradients travel
    the other way, the gradient of that computation does.
    """

    def __init__(self, send: list[int], receive: list[int], group: ProcessGroup) -> None:
        self.send, self.receive, self.group = send, receive, group

    def start(self, rows: Tensor, there: bool) -> Tensor:
        """Send without waiting; what comes is valid after `work.wait()`."""
        send, receive = (self.send, self.receive) if there else (self.receive, self.send)
        coming = rows.new_empty(sum(receive), rows.shape[1])
        self.work = dist.all_to_all_single(coming, rows.contiguous(), receive, send, group=self.group, async_op=True)
        return coming

    def depart(self, rows: Tensor) -> Tensor:
        """Start the exchange of rows (Σ send, D): the memory (Σ receive, D) that it fills."""
        return _Depart.apply(rows, self)

    def arrive(self, coming: Tensor) -> Tensor:
        """Wait for it."""
        return _Arrive.apply(coming, self)


class _Depart(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, trip: Trip) -> Tensor:
        ctx.trip = trip
        return trip.start(rows, there=True)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        ctx.trip.work.wait()
        return ctx.trip.gradient, None


class _Arrive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coming: Tensor, trip: Trip) -> Tensor:
        ctx.trip = trip
        trip.work.wait()
        return coming.view_as(coming)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.trip.gradient = ctx.trip.start(gradient, there=False)
        return gradient, None


class ExpertExchange:
    """The `exchange` of a layer's routed experts; counts what it sends.

    Attributes:
        remote_rows: rows sent to other processes in forward passes, one way.
        bytes: of forward traffic to other processes, there and back, with the sizes that go ahead.
        seconds: that forward passes waited for exchanges; what overlapped with computing is not in it.
    """

    trip: type[Trip] = Trip

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self.P, self.rank = dist.get_world_size(group), dist.get_rank(group)
        self.remote_rows = 0
        self.bytes = 0
        self.waited = 0.0
        self.events: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    @property
    def seconds(self) -> float:
        """As above; waits for what a GPU has still to do."""
        if self.events:
            self.events[-1][1].synchronize()
        self._add_finished()
        return self.waited

    def __call__(self, rows: Tensor, counts: Tensor) -> Callable[[Compute], Tensor]:
        """Send rows (M, D) sorted by expert, `counts` (E,) of each; the rest of the way, which gives their outputs."""
        with self.timed(rows):
            counts = counts.view(self.P, -1)  # by owner: expert e belongs to process e // (E/P)
            arriving = torch.empty_like(counts)
            dist.all_to_all_single(arriving, counts, group=self.group)
            send, receive = torch.stack([counts.sum(dim=1), arriving.sum(dim=1)]).tolist()
            there = self.trip(send, receive, self.group)
            coming = there.depart(rows)
        self._account(rows, counts, send, receive)

        def finish(compute: Compute) -> Tensor:
            with self.timed(rows):
                arrived = there.arrive(coming)
            # They come ordered by sender, then expert; the grouped product wants the experts together.
            expert = torch.arange(counts.shape[1], device=rows.device).repeat(self.P)
            order = expert.repeat_interleave(arriving.flatten(), output_size=sum(receive)).argsort(stable=True)
            inverse = inverse_of(order)
            y = compute(Dispatch.apply(arrived, order, inverse), arriving.sum(dim=0))
            back = self.trip(receive, send, self.group)
            with self.timed(rows):
                return back.arrive(back.depart(Dispatch.apply(y, inverse, order)))

        return finish

    @contextmanager
    def timed(self, rows: Tensor) -> Iterator[None]:
        """Add what passes, on the GPU's own clock where `rows` are on one, to `seconds`."""
        if rows.is_cuda:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self.events.append((start, end))
            self._add_finished()
        else:
            began = time.perf_counter()
            yield
            self.waited += time.perf_counter() - began

    def _add_finished(self) -> None:
        while self.events and self.events[0][1].query():
            start, end = self.events.popleft()
            self.waited += start.elapsed_time(end) / 1000

    def _account(self, rows: Tensor, counts: Tensor, send: list[int], receive: list[int]) -> None:
        there, back = (sum(sizes) - sizes[self.rank] for sizes in (send, receive))
        self.remote_rows += there
        row_bytes = rows.shape[1] * rows.element_size()
        self.bytes += (there + back) * row_bytes + (self.P - 1) * counts.shape[1] * counts.element_size()
