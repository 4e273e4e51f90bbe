"""Expert parallelism: rows travel to the process that owns their expert, and back to their old places.

M rows here   P processes   E experts, E/P on each   D hidden
"""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from finseek.model.experts import Compute
from finseek.model.grouped import Dispatch


class AllToAll(torch.autograd.Function):
    """Rows (Σ send, D) go in pieces to all processes; (Σ receive, D) comes from them. Gradients take the way back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, send: list[int], receive: list[int], group: ProcessGroup) -> Tensor:
        """Exchange."""
        ctx.send, ctx.receive, ctx.group = send, receive, group
        arrived = rows.new_empty(sum(receive), rows.shape[1])
        dist.all_to_all_single(arrived, rows.contiguous(), receive, send, group=group)
        return arrived

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Exchange back."""
        returned = grad.new_empty(sum(ctx.send), grad.shape[1])
        dist.all_to_all_single(returned, grad.contiguous(), ctx.send, ctx.receive, group=ctx.group)
        return returned, None, None, None


class ExpertExchange:
    """The `exchange` of a layer's routed experts; counts what it sends.

    Attributes:
        remote_rows: rows sent to other processes in forward passes, one way.
        bytes: of forward traffic to other processes, there and back, with the sizes that go ahead.
        seconds: spent in forward exchanges (on a GPU: enqueueing them).
    """

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self.P, self.rank = dist.get_world_size(group), dist.get_rank(group)
        self.remote_rows = 0
        self.bytes = 0
        self.seconds = 0.0

    def __call__(self, rows: Tensor, counts: Tensor, compute: Compute) -> Tensor:
        """Rows (M, D) sorted by expert, `counts` (E,) of each: the experts' outputs in the same order."""
        start = time.perf_counter()
        counts = counts.view(self.P, -1)  # by owner: expert e belongs to process e // (E/P)
        arriving = torch.empty_like(counts)
        dist.all_to_all_single(arriving, counts, group=self.group)
        send, receive = torch.stack([counts.sum(dim=1), arriving.sum(dim=1)]).tolist()
        arrived = AllToAll.apply(rows, send, receive, self.group)
        self.seconds += time.perf_counter() - start

        # They come ordered by sender, then expert; the grouped product wants the experts together.
        expert = torch.arange(counts.shape[1], device=rows.device).repeat(self.P)
        order = expert.repeat_interleave(arriving.flatten(), output_size=sum(receive)).argsort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        y = compute(Dispatch.apply(arrived, order, inverse), arriving.sum(dim=0))

        start = time.perf_counter()
        returned = AllToAll.apply(Dispatch.apply(y, inverse, order), receive, send, self.group)
        self.seconds += time.perf_counter() - start
        self._account(rows, counts, send, receive)
        return returned

    def _account(self, rows: Tensor, counts: Tensor, send: list[int], receive: list[int]) -> None:
        there, back = (sum(sizes) - sizes[self.rank] for sizes in (send, receive))
        self.remote_rows += there
        row_bytes = rows.shape[1] * rows.element_size()
        self.bytes += (there + back) * row_bytes + (self.P - 1) * counts.shape[1] * counts.element_size()
