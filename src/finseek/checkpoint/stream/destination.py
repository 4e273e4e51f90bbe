"""The folder that a conversion writes to: may it be used, is there room, and what comes over unconverted."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finseek.checkpoint.shards import CONFIG, INDEX
from finseek.checkpoint.stream.ledger import JOURNALS, LEDGER, Entry, read_ledger
from finseek.checkpoint.stream.plan import ShardPlan
from finseek.core.artifacts import atomic_file
from finseek.core.errors import InputError

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")
MARGIN = 64 << 20  # bytes of disk kept free for index, ledger and the file system's own needs


def refuse_used(folder: Path) -> None:
    """Nothing of the user's is overwritten.

    Raises:
        InputError: the folder is a file, or holds something.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose a folder for the new checkpoint")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; choose an empty folder or a new one")


def finished_before(
    folder: Path, source: Path, identity: Mapping[str, Any], resume: bool, plans: Sequence[ShardPlan]
) -> list[Entry] | None:
    """The entries of a finished conversion, if resuming finds one; refuses a destination that is in use."""
    if source.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise InputError(f"{folder} lies in the source {source}; choose another destination")
    if not folder.exists():
        return None
    begun = any(folder.glob(JOURNALS))
    if not resume:
        if begun:
            raise InputError(f"{folder} holds an unfinished conversion; continue with --resume, or delete it")
        refuse_used(folder)
        return None
    if not folder.is_dir():
        refuse_used(folder)
    ledger = read_ledger(folder)
    if ledger is None or begun:
        others = [path for path in folder.iterdir() if not path.name.startswith(".")]
        if not begun and others:
            raise InputError(f"{folder} holds {others[0].name} and no conversion to resume; choose an empty folder")
        return None
    if ledger.job != identity:
        raise InputError(f"{folder} was finished with another source or other options; choose an empty folder")
    for plan in plans:
        path = folder / plan.file
        if not path.is_file() or path.stat().st_size != plan.length:
            raise InputError(f"{path} is missing or altered since the conversion finished; delete {folder}")
    return list(ledger.entries.values())


def check_space(folder: Path, needed: int) -> None:
    """Is there room for `needed` bytes?

    Raises:
        InputError: says how much is missing.
    """
    place = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed + MARGIN > free:
        raise InputError(
            f"{folder}: {needed / 1e9:.2f} GB are to be written and {free / 1e9:.2f} GB are free on that disk; free "
            f"{(needed + MARGIN - free) / 1e9:.2f} GB or choose another destination"
        )


def copy_others(source: Path, folder: Path) -> list[str]:
    """Copy what is neither weights, index nor config: tokenizer, code, licence; the names of what was copied."""
    copied = []
    for path in sorted(source.iterdir()):
        skip = path.name in (INDEX, CONFIG, LEDGER) or path.suffix in WEIGHTS or path.name.startswith(".")
        if path.is_file() and not skip:
            with atomic_file(folder / path.name) as partial:
                shutil.copyfile(path, partial)
            copied.append(path.name)
    return copied
