"""Reading and writing past the page cache where the file system allows it, and through it elsewhere.

A conversion touches every byte once; the page cache would only fill with what nobody reads again, and costs a copy.
Direct I/O wants addresses, offsets and lengths in multiples of `PAGE`; what is not goes through the cache.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finseek.core.errors import FinseekError

PAGE = 4096
Bytes = NDArray[np.uint8]


def aligned(n: int) -> int:
    """`n` rounded up to a multiple of `PAGE`."""
    return -(-n // PAGE) * PAGE


def buffer(n: int) -> Bytes:
    """`n` bytes of anonymous memory at a page boundary, given back when the last view is gone."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # else it would be shared memory, without huge pages
    return np.frombuffer(mmap.mmap(-1, max(aligned(n), PAGE), flags=private), np.uint8)


def open_direct(path: Path, flags: int) -> int | None:
    """A descriptor that bypasses the page cache, or None where the file system has no such thing."""
    try:
        return os.open(path, flags | os.O_DIRECT | os.O_CLOEXEC, 0o644)
    except (OSError, AttributeError):
        return None


class Reader:
    """Reads ranges of the files of a folder; safe to share between threads."""

    def __init__(self, folder: Path, direct: bool = True) -> None:
        self.folder, self.direct = folder, direct
        self._open: dict[str, tuple[int, bool]] = {}
        self._lock = threading.Lock()

    def _descriptor(self, file: str) -> tuple[int, bool]:
        with self._lock:
            if file not in self._open:
                path = self.folder / file
                found = open_direct(path, os.O_RDONLY) if self.direct else None
                self._open[file] = (
                    (os.open(path, os.O_RDONLY | os.O_CLOEXEC), False) if found is None else (found, True)
                )
            return self._open[file]

    def read(self, file: str, begin: int, n: int, into: Bytes) -> Bytes:
        """Bytes [begin, begin + n) of a file, as a view of `into`, which holds `aligned(n) + PAGE` or more.

        Raises:
            FinseekError: the file ends before.
        """
        descriptor, direct = self._descriptor(file)
        skipped = begin % PAGE if direct else 0
        wanted = aligned(skipped + n) if direct else n
        view, got = into.data[:wanted], 0
        while got < skipped + n:
            more = os.preadv(descriptor, [view[got:]], begin - skipped + got)
            if more == 0:
                raise FinseekError(f"{self.folder / file}: ends at byte {begin - skipped + got} while it is read")
            got += more
            if direct and got % PAGE and got < skipped + n:
                raise FinseekError(f"{self.folder / file}: ends at byte {begin - skipped + got} while it is read")
        return into[skipped : skipped + n]

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for descriptor, _ in self._open.values():
                os.close(descriptor)
            self._open.clear()


class Output:
    """A file of known length, written in any order by several threads under a temporary name."""

    def __init__(self, path: Path, partial: Path, length: int, direct: bool = True) -> None:
        self.path, self.partial = path, partial
        self.buffered = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self.direct: int | None = None
        try:
            _allocate(self.buffered, length)
            self.direct = open_direct(partial, os.O_WRONLY) if direct else None
        except BaseException:
            self.discard()
            raise

    def write(self, piece: Bytes, begin: int) -> None:
        """Write a piece at its place."""
        fits = (piece.ctypes.data | begin | piece.nbytes) % PAGE == 0
        descriptor = self.direct if fits and self.direct is not None else self.buffered
        view, done = piece.data, 0
        while done < piece.nbytes:
            done += os.pwrite(descriptor, view[done:], begin + done)

    def finish(self) -> None:
        """Bring the file to the disk and give it its name."""
        getattr(os, "fdatasync", os.fsync)(self.buffered)  # macOS has fsync alone
        self._close()
        self.partial.replace(self.path)
        sync_folder(self.path.parent)

    def discard(self) -> None:
        """Close and delete the file."""
        self._close()
        self.partial.unlink(missing_ok=True)

    def _close(self) -> None:
        for descriptor in (self.buffered, self.direct):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self.buffered, self.direct = -1, None


def _allocate(descriptor: int, length: int) -> None:
    """Reserve the blocks now: a full disk shows at once, and writes in any order lie together.

    By the system call, not `os.posix_fallocate`, whose substitute on network file systems writes to every block.
    """
    os.ftruncate(descriptor, length)
    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if call is not None and call(descriptor, 0, ctypes.c_long(0), ctypes.c_long(length)):
        error = ctypes.get_errno()
        if error in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error, os.strerror(error))


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder outlast a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
