"""Rehearsal servers that are started, killed and started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ZYGOTE = Path(__file__).with_name("zygote.py")
ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 90.0


@dataclass
class Server:
    """One replica: where it listens, as long as it lives."""

    process: int
    output: Path

    def address(self) -> str:
        """Waits until the server listens."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(FileNotFoundError, IndexError, json.JSONDecodeError):
                said = self.output.read_text()
                if "error" in said:
                    raise AssertionError(said)
                address: str = json.loads(said.splitlines()[0])["listening"]
                return address
            time.sleep(0.005)
        raise AssertionError(f"the server did not listen: {self.output.read_text()}")

    def kill(self) -> None:
        """kill -9; returns once the process is gone."""
        os.kill(self.process, signal.SIGKILL)
        end = time.monotonic() + PATIENCE
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < end:
                os.kill(self.process, 0)
                time.sleep(0.001)
            raise AssertionError(f"process {self.process} outlived its kill")


@dataclass
class Servers:
    """Starts servers on one ledger with the same options."""

    folder: Path
    options: list[str]
    zygote: subprocess.Popen[str]
    started: int = 0
    alive: list[Server] = field(default_factory=list)

    def start(self) -> Server:
        """A new server process; see `Server.address`."""
        self.started += 1
        output = self.folder / f"server-{self.started}.txt"
        order = {
            "arguments": ["--ledger", str(self.folder / "ledger"), *self.options],
            "output": str(output),
        }
        assert self.zygote.stdin is not None
        assert self.zygote.stdout is not None
        self.zygote.stdin.write(json.dumps(order) + "\n")
        self.zygote.stdin.flush()
        server = Server(int(self.zygote.stdout.readline()), output)
        self.alive.append(server)
        return server

    def kill(self, server: Server) -> None:
        """Kills one of those that live."""
        self.alive.remove(server)
        server.kill()


@contextlib.contextmanager
def servers(folder: Path, *options: str) -> Iterator[Servers]:
    """Servers of the rehearsal ledger `folder`/ledger; all killed at the end."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(ZYGOTE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as zygote:
        found = Servers(
            folder, ["--plaintext", "--listen", "127.0.0.1:0", "--json", *options], zygote
        )
        try:
            yield found
        finally:
            for server in list(found.alive):
                with contextlib.suppress(ProcessLookupError):
                    found.kill(server)
            zygote.kill()
