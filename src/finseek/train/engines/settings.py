"""What a training process sets for itself, and puts back."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def process_settings(threads: int, seed: int) -> Iterator[None]:
    """Threads, determinism, the generator of random weights, and Lightning's silence."""
    old_threads, old_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    old_fill = torch.utils.deterministic.fill_uninitialized_memory
    cuda = torch.cuda.is_available()
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(not cuda)
        torch.utils.deterministic.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.set_num_threads(old_threads)
            torch.use_deterministic_algorithms(old_deterministic)
            torch.utils.deterministic.fill_uninitialized_memory = old_fill


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice on workers, loggers and checkpoints concerns loops that we don't use."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for module in (r"lightning\..*", r"lightning_fabric\..*", r"torch\.utils\.data\..*"):
                warnings.filterwarnings("ignore", module=module)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
