"""A request to stop soon, by signal: remembered until the step at work is done."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preemption:
    """Inside it SIGTERM and SIGUSR1 end nothing; ``asked`` is the name of the first that came.

    Handlers exist in the main thread alone; elsewhere it does nothing.
    """

    def __init__(self) -> None:
        self.asked: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Preemption:
        self._before = self.install()
        return self

    def install(self) -> dict[signal.Signals, Any]:
        """Take the signals over, from whoever has them now; returns their handlers."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, self._note) for number in SIGNALS}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = self.asked or signal.Signals(number).name
