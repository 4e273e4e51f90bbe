"""Imports of libraries that talk while they load."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Of torchao and bitsandbytes: kernels for GPUs and instruction sets that are not here, which nothing asks for.
TALKATIVE = ("torchao", "torch.utils._pytree", "bitsandbytes")


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Import PEFT, TRL or bitsandbytes inside, and hear errors alone."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
