"""`teacher-server` processes that are started, killed, stopped and started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.clock import Clock

ZYGOTE = Path(__file__).with_name("zygote.py")
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90.0
"""Seconds without progress that fail a run before the timeout of a test does."""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Returns once the condition holds. Raises AssertionError, which says what did not happen."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.002)


@dataclass
class Server:
    """One replica: where it listens, as long as it lives."""

    process: int
    output: Path

    def address(self) -> str:
        """Waits until the server listens."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(FileNotFoundError, StopIteration, json.JSONDecodeError):
                said = self.output.read_text()
                if "error:" in said:
                    raise AssertionError(said)
                # Warnings may stand before it.
                facts = next(line for line in said.splitlines() if line.startswith("{"))
                address: str = json.loads(facts)["listening"]
                return address
            time.sleep(0.005)
        raise AssertionError(f"the server did not listen: {self.output.read_text()}")

    @property
    def alive(self) -> bool:
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """kill -9; returns once the process is gone."""
        os.kill(self.process, signal.SIGKILL)
        wait_for(lambda: not self.alive, f"process {self.process} outlived its kill")

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        os.kill(self.process, signal.SIGTERM)
        return self.end()

    def end(self) -> int:
        """Waits for its end by itself; the exit code."""
        wait_for(lambda: not self.alive, f"no end: {self.output.read_text()}")
        return int(self.output.with_name(f"{self.output.name}.exit").read_text())


@dataclass
class Servers:
    """Starts servers with the same options on one ledger, or on copies of its folder."""

    folder: Path
    options: list[str]
    forking: subprocess.Popen[str]
    started: int = 0
    alive: list[Server] = field(default_factory=list)

    def start(self, ledger: Path | None = None) -> Server:
        """A new server process; see `Server.address`."""
        self.started += 1
        output = self.folder / f"server-{self.started}.txt"
        order = {
            "arguments": [
                "rehearse", "--ledger", str(ledger or self.folder / "ledger"), *self.options,
            ],
            "output": str(output),
        }  # fmt: skip
        assert self.forking.stdin is not None
        assert self.forking.stdout is not None
        self.forking.stdin.write(json.dumps(order) + "\n")
        self.forking.stdin.flush()
        server = Server(int(self.forking.stdout.readline()), output)
        self.alive.append(server)
        return server

    def kill(self, server: Server) -> None:
        """Kills one of those that live."""
        self.alive.remove(server)
        server.kill()

    def stop(self, server: Server) -> int:
        """SIGTERM to one of those that live; its exit code."""
        self.alive.remove(server)
        return server.stop()

    def end(self, server: Server) -> int:
        """Waits until one of those that live ends by itself; its exit code."""
        self.alive.remove(server)
        return server.end()


@contextlib.contextmanager
def zygote(clock: Clock | None = None) -> Iterator[subprocess.Popen[str]]:
    """What forks servers, all with this clock."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if clock is not None:
        environment |= clock.environment
    with subprocess.Popen(
        [sys.executable, str(ZYGOTE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def servers(
    folder: Path, *options: str, forking: subprocess.Popen[str] | None = None
) -> Iterator[Servers]:
    """Rehearsal servers, on `folder`/ledger unless told otherwise; all killed at the end.

    forking: of `zygote`, one of their own when not given.
    """
    with contextlib.ExitStack() as own:
        forking = forking or own.enter_context(zygote())
        secured = "--certs" in options
        transport = ("localhost:0",) if secured else ("127.0.0.1:0", "--plaintext")
        found = Servers(folder, ["--listen", *transport, "--json", *options], forking)
        try:
            yield found
        finally:
            for server in list(found.alive):
                with contextlib.suppress(ProcessLookupError):
                    found.kill(server)
