"""The bytes of a checkpoint, read in the plainest way."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from finseek.checkpoint.shards import TensorInfo, read_checkpoint


def raw(folder: Path) -> dict[str, tuple[TensorInfo, np.ndarray]]:
    """Every tensor with its bytes, by name."""
    files = {shard: (folder / shard).read_bytes() for shard in read_checkpoint(folder).shards}
    return {
        name: (info, np.frombuffer(files[info.shard], np.uint8, info.nbytes, info.begin))
        for name, info in read_checkpoint(folder).tensors.items()
    }
