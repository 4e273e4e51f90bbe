"""One process at a time in a run folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finseek.core.errors import FinseekError


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock file; the kernel lets go of it when the process dies, however it dies.

    Raises:
        FinseekError: if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FinseekError(
                f"{path.parent} is in use by another finseek process: wait for it, or choose another run.name"
            ) from None
        yield
    finally:
        os.close(descriptor)
