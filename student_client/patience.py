"""Asking again while a fault may pass: a restart of the service is no reason to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, TypeVar

from student_client.errors import TeacherUnavailable

Result = TypeVar("Result")

_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0


def patiently(
    call: Callable[[], Result],
    patience: float,
    waiting: Callable[[str, float], None],
    sleep: Callable[[float], None] = time.sleep,
    answered: Callable[[], float] = lambda: -math.inf,
) -> Result:
    """`call()`, again and again until `patience` seconds after its first passing fault.

    answered: `time.monotonic` at which the service last answered another call of the same user;
    patience begins anew then.

    The pauses double from a quarter of a second to five, unless the service suggests a longer one.
    `waiting` hears the reason and the seconds of each pause. Raises TeacherUnavailable in the end,
    and every other error at once.
    """
    pause, end = _FIRST_PAUSE, None
    while True:
        try:
            return call()
        except TeacherUnavailable as fault:
            now = time.monotonic()
            end = max(now + patience if end is None else end, answered() + patience)
            wait = max(pause, fault.retry_seconds)
            if now + wait > end:
                raise
            waiting(str(fault), wait)
            sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)
