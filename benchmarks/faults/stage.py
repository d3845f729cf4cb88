"""Servers under load, for something to happen to them."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

from benchmarks.faults.books import REHEARSED, Books, ask_again, options_of, read_books
from benchmarks.faults.servers import PATIENCE, Server, Servers, servers, wait_for
from benchmarks.faults.stream import UNREACHED, Connect, Heard, Stream, plaintext
from privacy.ledger import Ledger
from protos import teacher_pb2_grpc
from teacher_server.rehearsal.options import RehearsalOptions
from teacher_server.rehearsal.throw_away import open_throw_away

FAILING: Final = (
    *UNREACHED, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED,
)  # fmt: skip
"""What passes once an operator, or whatever starts ended servers again, has done their work."""


@dataclass
class Stage:
    """Hosts, each with a copy of the ledger's folder and at most one server; and their clients.

    witness: the one file on storage that all hosts share.
    """

    hosts: list[Path]
    witness: Path
    pool: Servers
    heard: Heard
    chance: random.Random
    connect: Connect
    deadline: float
    rehearsed: RehearsalOptions
    live: dict[int, Server] = field(default_factory=dict)
    addresses: dict[int, str] = field(default_factory=dict)
    streams: list[Stream] = field(default_factory=list)
    ends: Counter[int] = field(default_factory=Counter)
    """Exit code → servers that ended by themselves."""
    broken: list[str] = field(default_factory=list)

    def start(self, host: int) -> None:
        """A server on this host, which listens on return."""
        server = self.pool.start(self.hosts[host])
        self.live[host] = server
        self.addresses[host] = server.address()

    def revive(self) -> None:
        """Starts a server wherever one has ended, as a supervisor does; waits until it listens."""
        for host, server in list(self.live.items()):
            if not server.alive:
                self.ends[self.pool.end(server)] += 1
                self.start(host)

    def kill(self, host: int) -> None:
        """kill -9."""
        self.pool.kill(self.live.pop(host))

    def stop(self, host: int) -> int:
        """SIGTERM; the exit code."""
        return self.pool.stop(self.live.pop(host))

    def load(self, clients: int, passing: Collection[grpc.StatusCode]) -> None:
        """Clients that ask without a pause, each try at any host, whether its server lives."""
        before = len(self.streams)
        for number in range(before + 1, before + clients + 1):
            own = random.Random(self.chance.getrandbits(32))
            stream = Stream(
                number * 10**6,
                lambda own=own: own.choice(list(self.addresses.values())),  # type: ignore[misc]
                self.heard,
                own,
                self.connect,
                passing,
                self.deadline,
            )
            self.streams.append(stream)
            stream.start()

    def progress(self, requests: int) -> None:
        """Waits until so many more requests were answered, while ended servers stay down."""
        enough = len(self.heard.receipts) + requests
        wait_for(
            lambda: len(self.heard.receipts) >= enough or self._failed(),
            f"the clients make no progress: {dict(self.heard.refusals)}",
        )

    def require_answered(self) -> None:
        """Whatever was charged by now has reached its client, at its first try."""
        unanswered: set[str] = set()

        def none_left() -> bool:
            nonlocal unanswered
            with Ledger.open(self.hosts[0], witness=self.witness, read_only=True) as ledger:
                settled = {entry.request_id for entry in ledger.entries(1)}
            unanswered = settled - self.heard.receipts.keys()
            return not unanswered

        # What has arrived may not be noted yet.
        with contextlib.suppress(AssertionError):
            wait_for(none_left, "")
        if unanswered:
            self.broken.append(f"{len(unanswered)} requests were charged and not answered")

    def finish(self, asked_again: int = 100) -> Books:
        """Ends the load, has old requests come again, stops the servers, and reads the ledger.

        asked_again: requests that every server that lives must answer as before.
        """
        for stream in self.streams:
            stream.finish()
        for host in self.live:
            with self.connect(self.addresses[host]) as channel:
                stub = teacher_pb2_grpc.TeacherServiceStub(channel)
                self.broken += ask_again(stub, self.heard, asked_again)
        for host in list(self.live):
            code = self.stop(host)
            if code != 0:
                self.broken.append(f"a server ended with {code} when it was told to stop")
        books = read_books(self.hosts[0], self.witness, self.heard, self.rehearsed)
        return Books(books.entries, books.answers, books.spent, (*self.broken, *books.broken))

    def _failed(self) -> bool:
        for stream in self.streams:
            if stream.fault is not None:
                raise stream.fault
        return False


@contextlib.contextmanager
def stage(
    folder: Path,
    *,
    hosts: int = 1,
    database_url: str | None = None,
    clients: int = 4,
    passing: Collection[grpc.StatusCode] = UNREACHED,
    connect: Connect = plaintext,
    deadline: float = PATIENCE,
    certificates: Path | None = None,
    rehearsed: RehearsalOptions = REHEARSED,
    forking: subprocess.Popen[str] | None = None,
    chance: random.Random | None = None,
) -> Iterator[Stage]:
    """A server on each host, and so many clients that ask; all are gone at the end.

    database_url: of a PostgreSQL database for the ledger's tables; None for SQLite and one host.
    deadline: seconds of one try. certificates: the servers' folder; plaintext without one.
    forking: of `servers.zygote`.
    """
    copies = [folder / f"host-{number}" / "ledger" for number in range(hosts)]
    witness = folder / "shared" / "head.json"
    witness.parent.mkdir(parents=True)
    make_ledger(copies, witness, database_url, rehearsed)
    secured = () if certificates is None else ("--certs", str(certificates))
    with servers(folder, *options_of(rehearsed), *secured, forking=forking) as pool:
        own = chance or random.Random()
        found = Stage(copies, witness, pool, Heard(), own, connect, deadline, rehearsed)
        for host in range(hosts):
            found.start(host)
        found.load(clients, passing)
        yield found


def make_ledger(
    copies: list[Path], witness: Path, database_url: str | None, rehearsed: RehearsalOptions
) -> None:
    """A throw-away ledger, its folder copied to every host, its witness where all hosts see it."""
    first, *others = copies
    first.parent.mkdir(parents=True, exist_ok=True)
    open_throw_away(first, rehearsed.ledger_plan, database_url).close()
    beside = first.with_name(f"{first.name}.witness.json")
    shutil.move(beside, witness)
    beside.symlink_to(witness)
    for other in others:
        shutil.copytree(first, other)
        other.with_name(beside.name).symlink_to(witness)
