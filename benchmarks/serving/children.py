"""Processes that measure whenever they are asked, and wait without work in between.

The speed of a machine that others share changes within seconds. What is to be compared is measured
in short turns, one right after the other, by processes that are there all the time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any


def answer_each_line(measure: Callable[..., dict[str, Any]]) -> None:
    """A JSON object of keywords a line in; what `measure` says of them, a line out."""
    for line in sys.stdin:
        print(json.dumps(measure(**json.loads(line))), flush=True)


class Child:
    """`python -m benchmarks.serving.MODULE WORDS`, which answers each line."""

    def __init__(self, module: str, *words: str, python: str = sys.executable) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [python, "-m", f"benchmarks.serving.{module}", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, **keywords: Any) -> dict[str, Any]:
        """Raises RuntimeError when the process ended instead of answering."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(keywords), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} ended at {keywords}; its own words are above")
        found: dict[str, Any] = json.loads(line)
        return found

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if kind is not None:
            self._process.kill()
        # Its input ends, and so does it.
        self._process.communicate(timeout=60)
