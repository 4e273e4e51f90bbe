"""Several processes that share the shards of one conversion, as torchrun starts them (one a GPU, or on CPUs)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

from finseek.checkpoint.options import StreamOptions
from finseek.core.errors import FinseekError

PATIENCE = timedelta(days=7)  # shards differ, and the first process that is done waits for the last


@contextmanager
def sharing(stream: StreamOptions, environment: Mapping[str, str]) -> Iterator[StreamOptions]:
    """`stream` with the rank, device and barrier of this process, if torchrun started it; else as it is.

    Args:
        stream: how the bytes flow in each process.
        environment: of this process.
    """
    if "TORCHELASTIC_RUN_ID" not in environment:
        yield stream
        return
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=PATIENCE)

    def barrier() -> None:
        try:
            dist.barrier()
        except RuntimeError:
            raise FinseekError(
                "another process has failed, for the reason that it gives; run again with --resume"
            ) from None

    try:
        yield replace(
            stream,
            rank=dist.get_rank(),
            world=dist.get_world_size(),
            device=int(environment["LOCAL_RANK"]),
            barrier=barrier,
        )
    finally:
        dist.destroy_process_group()
