"""Forks a rehearsal server for every line on standard input, so that a start takes no imports.

    {"arguments": ["--ledger", …], "output": FILE}  →  the server's process id, on standard output

The server is the rehearsal's own command in a process of its own; its output goes to FILE.
"""

import json
import os
import signal
import sys

from sqlalchemy import create_engine

from privacy.noise import DEFAULT_NOISE, source
from teacher_server.rehearsal.command import main


def serve(arguments: list[str], output: str) -> None:
    """What the forked process does, until it is killed."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.argv = ["rehearse", *arguments]
    main()


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
            code = 1
            try:
                serve(order["arguments"], order["output"])
                code = 0
            finally:
                os._exit(code)
        print(child, flush=True)


if __name__ == "__main__":
    wait_for_orders()
