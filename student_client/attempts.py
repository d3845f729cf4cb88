"""What exporters and runtimes do with somebody's network: a line, where they fail."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TypeVar

from ktan.errors import UserError

_Made = TypeVar("_Made")


def attempt(failure: str, make: Callable[[], _Made]) -> _Made:
    """What `make` returns, with nothing printed or logged by it.

    Raises UserError when it raises anything: `failure`, and the first line of what it says.
    """
    try:
        with _silence():
            return make()
    except Exception as error:
        # Whatever the exporter meets in somebody's network, of which torch gives pages.
        raise UserError(f"{failure}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Kind and first line of an error, short enough for a line."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first[:200]}"


@contextmanager
def _silence() -> Iterator[None]:
    """torch's exporter prints the graph at which it stops, and logs its own progress."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
