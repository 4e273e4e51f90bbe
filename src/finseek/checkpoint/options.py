"""Options of the conversions: plain dataclasses, for they also run where nothing but torch and numpy is installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from finseek.checkpoint.fp8 import FORMATS, TARGETS, Block
from finseek.core.errors import ConfigError

GiB = 1 << 30
ON_NAN = {
    "error": "look at every weight first, and write nothing if one is NaN or infinite",
    "stop": "look during the conversion, and stop at the first; saves a pass over the source",
    "keep": "convert them as they are, and count them",
}


def alone() -> None:
    """The barrier of a single process."""


@dataclass(frozen=True)
class StreamOptions:
    """How the bytes flow; decides nothing about the result but the cut into shards.

    Attributes:
        workers: threads of each process.
        memory: bytes that scales and buffers of a process may take.
        shard_bytes: tensors of at most this many bytes share a file.
        resume: continue what was begun in the destination.
        direct: bypass the page cache where the file system allows it.
        kernel: auto, or one of `kernels.KERNELS`.
        device: number of the GPU, for the Triton kernel.
        rank, world: this process among those that share the work, each shard by one of them.
        barrier: waits for all of them.
    """

    workers: int = 8
    memory: int = 2 * GiB
    shard_bytes: int = 5_000_000_000
    resume: bool = False
    direct: bool = True
    kernel: str = "auto"
    device: int = 0
    rank: int = 0
    world: int = 1
    barrier: Callable[[], None] = alone

    def __post_init__(self) -> None:
        for name in ("workers", "memory", "shard_bytes", "world"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)} must be at least 1")
        if not 0 <= self.rank < self.world:
            raise ConfigError(f"rank: {self.rank} must be in 0..{self.world - 1}")


@dataclass(frozen=True)
class DequantizeOptions:
    """What FP8 becomes.

    Attributes:
        dtype: bf16, fp16 or fp32; F32 tensors (the router's bias) stay F32, other float tensors become this too.
        mtp: keep or drop the MTP layers.
        on_nan: a key of `ON_NAN`.
        stream: how the bytes flow.
    """

    dtype: str = "bf16"
    mtp: str = "keep"
    on_nan: str = "error"
    stream: StreamOptions = field(default_factory=StreamOptions)

    def __post_init__(self) -> None:
        _one_of("dtype", self.dtype, TARGETS)
        _one_of("mtp", self.mtp, ("keep", "drop"))
        _one_of("on_nan", self.on_nan, ON_NAN)


@dataclass(frozen=True)
class QuantizeOptions:
    """How weights become FP8.

    Attributes:
        format: F8_E4M3 or F8_E5M2.
        block: rows and columns that share a scale.
        on_nan: error or stop; NaN has no scale.
        stream: how the bytes flow.
    """

    format: str = "F8_E4M3"
    block: Block = (128, 128)
    on_nan: str = "error"
    stream: StreamOptions = field(default_factory=StreamOptions)

    def __post_init__(self) -> None:
        _one_of("format", self.format, FORMATS)
        _one_of("on_nan", self.on_nan, ("error", "stop"))
        if min(self.block) < 1:
            raise ConfigError(f"block: {self.block} must be positive")


def _one_of(key: str, value: str, allowed: object) -> None:
    names = list(allowed)  # type: ignore[call-overload]
    if value not in names:
        raise ConfigError(f"{key}: {value!r} is none of {', '.join(names)}")
