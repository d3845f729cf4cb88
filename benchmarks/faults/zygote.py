"""Forks a server for every line on standard input, so that a start takes no imports.

    {"arguments": ["rehearse", …], "output": FILE, "clock": FILE}  →  its process id, on stdout

The server is `teacher-server` in a process of its own, which writes to `output`, and its exit code
to `output` with `.exit` behind it. `clock`: holds how many seconds its wall clock is set forward.
"""

import json
import os
import signal
import sys
import time
import traceback
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

from sqlalchemy import create_engine

import privacy.ledger.clock
import teacher_server.cli
import teacher_server.rehearsal.command
from privacy.noise import DEFAULT_NOISE, source


def serve(arguments: list[str], output: str) -> None:
    """What the forked process does, until it is killed."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.argv = ["teacher-server", *arguments]
    teacher_server.cli.main()


def follow(clock: Path) -> None:
    """Sets what this process takes for the time of day by the seconds in a file, whenever it asks.

    Python's two ways to ask, and no more: gRPC looks at certificates by the system's own clock.
    """
    now = time.time

    def set_forward() -> float:
        return float(clock.read_text())

    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=set_forward())

    # The module that dates entries looks the class up under this name.
    privacy.ledger.clock.datetime = Moved  # type: ignore[misc]
    time.time = lambda: now() + set_forward()


def wait_for_orders() -> None:
    """Reads a line, forks, prints the process id."""
    # What every server would load and compute again: its tables, not its keys.
    source(DEFAULT_NOISE)
    for url in ("sqlite://", "postgresql+psycopg://nobody@nowhere/none"):
        create_engine(url).dispose()
    # The system takes the dead away.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            code: object = 1
            try:
                if order["clock"] is not None:
                    follow(Path(order["clock"]))
                serve(order["arguments"], order["output"])
                code = 0
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                Path(order["output"] + ".exit").write_text(str(code))
                os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    wait_for_orders()
