"""The three commands as real processes, forked from one that has torch and our code in it already.

What is shared ends at the fork: each has its own memory, files, threads and signals, runs the entry
point of the installed command, and can be killed. Only the seconds of its imports are saved.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

import pytest

_ENTRIES: Final = {
    "teacher-server": "teacher_server.cli",
    "student-client": "student_client.cli",
    "privacy-audit": "privacy.audit.cli",
}
_AT_HAND: Final = [
    # A child takes the module that the tests were started from for its own.
    "pytest",
    "tests.end_to_end.commands",
    "torch.utils.flop_counter",
    "teacher_server.commands.open_ledger",
    "teacher_server.commands.serve",
    "teacher_server.commands.teacher",
    "student_client.commands_train",
    "privacy.audit.commands.ledger",
]
PATIENCE: Final = 240.0
"""Seconds without an end, or without progress, that fail a test before its own timeout."""


@dataclass(frozen=True)
class Running:
    """A command's process, and the files that it writes to."""

    process: ForkServerProcess
    stdout: Path
    stderr: Path

    @property
    def output(self) -> str:
        """What it wrote to standard output so far."""
        return self.stdout.read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        """What it wrote to standard error so far."""
        return self.stderr.read_text(encoding="utf-8")

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def end(self) -> int:
        """Waits for its end: the exit code, or minus the signal that ended it."""
        self.process.join(PATIENCE)
        code = self.process.exitcode
        assert code is not None, f"no end: {self.output}\n{self.errors}"
        return code

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGTERM)
        return self.end()

    def kill(self) -> int:
        """kill -9, where it still runs."""
        self.process.kill()
        return self.end()

    def first_line(self) -> str:
        """Of its standard output, as soon as it is there."""
        self.wait_for(lambda: "\n" in self.output)
        return self.output.splitlines()[0]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Returns when the condition holds; fails where the process ends before."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.alive or condition(), self.errors
            assert time.monotonic() < end, "no progress"
            time.sleep(0.02)


def start(folder: Path, command: str, *arguments: object) -> Running:
    """Starts a command, which writes to new files in `folder`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_AT_HAND)
    folder.mkdir(exist_ok=True)
    number = len(list(folder.glob("*.out")))
    stdout, stderr = folder / f"{number}.out", folder / f"{number}.err"
    stdout.touch()
    stderr.touch()
    words = [command, *map(str, arguments)]
    process = context.Process(target=_run, args=(words, str(stdout), str(stderr)))
    with pytest.MonkeyPatch.context() as patch:
        # Threads that a library starts when it is imported would be lost in the fork.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            patch.setenv(name, "1")
        process.start()
    return Running(process, stdout, stderr)


def _run(words: list[str], stdout: str, stderr: str) -> None:
    for stream, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY), stream)
    sys.argv = words
    importlib.import_module(_ENTRIES[words[0]]).main()
