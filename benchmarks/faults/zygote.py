"""Forks a server for every line on standard input, so that a start takes no imports.

    {"arguments": ["rehearse", …], "output": FILE}  →  its process id, on standard output

The server is `teacher-server` in a process of its own, which writes to `output`, and its exit code
to `output` with `.exit` behind it.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

from sqlalchemy import create_engine

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
