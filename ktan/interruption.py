"""Ctrl-C that waits for the step under way, so that a checkpoint is never of half a step."""

import signal
import threading
from types import FrameType
from typing import Any


class Interruption:
    """Within, the first ctrl-C sets `asked`; a second one interrupts at once.

    SIGTERM, by which batch systems and torchrun end a process, sets it too, however often it comes:
    it often follows a ctrl-C. Outside the main thread, where Python delivers no signals, nothing
    changes.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[signal.Signals, Any] = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous.items():
            if previous is not None:
                signal.signal(number, previous)
