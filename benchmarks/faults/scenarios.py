"""What happens to the service while clients ask. Each returns once it is over and all is mended."""

from __future__ import annotations

import contextlib
import datetime
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc

from benchmarks.faults.certificates import renew_server_certificate
from benchmarks.faults.clock import Clock
from benchmarks.faults.database import OwnDatabase, OwnServer
from benchmarks.faults.servers import wait_for
from benchmarks.faults.stage import Stage
from benchmarks.faults.stream import UNREACHED
from protos import teacher_pb2, teacher_pb2_grpc

DAY: Final = 86_400
_FROZEN_SECONDS: Final = 40.0
"""Longer than a transaction may stand still."""


def killed_server(scene: Stage, times: int = 5) -> None:
    """kill -9 the only server, and start it again."""
    for _ in range(times):
        scene.progress(100)
        scene.kill(0)
        scene.start(0)
    scene.progress(100)


def killed_replica(scene: Stage, requests: int = 100) -> None:
    """kill -9 one of two replicas, for good."""
    scene.progress(requests)
    scene.kill(1)
    scene.progress(2 * requests)


def drained(scene: Stage, times: int = 5, requests: int = 100) -> None:
    """SIGTERM the only server: what it accepted is answered; then start it again."""
    for _ in range(times):
        scene.progress(requests)
        code = scene.stop(0)
        if code != 0:
            scene.broken.append(f"SIGTERM: exit code {code}")
        scene.require_answered()
        scene.start(0)
    scene.progress(requests)


def lost_connections(
    scene: Stage, database: OwnDatabase, times: int = 10, requests: int = 50
) -> None:
    """Every connection to the database is terminated by its server."""
    for _ in range(times):
        scene.progress(requests)
        database.terminate()
        _go_on(scene, requests)


def crashed_database(scene: Stage, server: OwnServer, times: int = 3) -> None:
    """The database server crashes, is away for a moment, and recovers."""
    for _ in range(times):
        scene.progress(100)
        server.crash()
        time.sleep(0.5)
        server.start()
        _go_on(scene, 100)


def frozen_replica(scene: Stage, database: OwnDatabase) -> None:
    """One of two replicas stands still in the middle of a transaction, and later goes on."""
    victim = scene.live[1].process
    end = time.monotonic() + 60
    while True:
        os.kill(victim, signal.SIGSTOP)
        # Whatever the other one has under way ends by itself.
        time.sleep(0.2)
        if _stands_still(database):
            break
        os.kill(victim, signal.SIGCONT)
        assert time.monotonic() < end, "it was never caught in a transaction"
        time.sleep(0.01)
    before = len(scene.heard.receipts)
    time.sleep(_FROZEN_SECONDS)
    if len(scene.heard.receipts) <= before:
        scene.broken.append(f"nobody was answered in {_FROZEN_SECONDS:.0f} s")
    os.kill(victim, signal.SIGCONT)
    _go_on(scene, 200)


def _stands_still(database: OwnDatabase) -> bool:
    """Whether the other replica waits for one and the same transaction all the while."""
    held = database.waited_for()
    for _ in range(5):
        time.sleep(0.1)
        held &= database.waited_for()
    return bool(held)


def full_disk(scene: Stage, disk: Path) -> None:
    """The ledger's disk has no room left, until somebody makes some."""
    scene.progress(100)
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    scene.ends[_ended(scene, 0)] += 1
    filler.unlink()
    scene.start(0)
    scene.progress(100)


def limited_file(scene: Stage) -> None:
    """The ledger's files may not grow any more."""
    scene.progress(20)
    folder = scene.hosts[0]
    most = max(path.stat().st_size for path in folder.glob("ledger.sqlite*"))
    _, hard = resource.prlimit(scene.live[0].process, resource.RLIMIT_FSIZE)
    resource.prlimit(scene.live[0].process, resource.RLIMIT_FSIZE, (most, hard))
    scene.ends[_ended(scene, 0)] += 1
    scene.start(0)
    scene.progress(20)


def turned_clock(scene: Stage, clock: Clock, requests: int = 100) -> None:
    """The servers' clocks jump three days back, then ten years forward, and back again."""
    for seconds in (0, -3 * DAY, 3650 * DAY, 0):
        clock.turn(seconds)
        scene.progress(requests)


def lost_witness(scene: Stage, requests: int = 100) -> None:
    """The storage with the witness goes away, and comes back."""
    scene.progress(requests)
    away = scene.witness.with_name("away")
    scene.witness.rename(away)
    for host in list(scene.live):
        scene.ends[_ended(scene, host)] += 1
    away.rename(scene.witness)
    for host in range(len(scene.hosts)):
        scene.start(host)
    scene.progress(requests)


def expired_certificate(scene: Stage, certificates: Path, end: datetime.datetime) -> None:
    """The server's certificate ends while clients are connected; then it is renewed, and the
    server goes on."""
    scene.progress(100)
    left = (end - datetime.datetime.now(datetime.UTC)).total_seconds()
    # Certificates tell whole seconds.
    time.sleep(max(0.0, left) + 2)
    scene.progress(100)
    if _reached(scene):
        scene.broken.append("a new connection took a certificate that had ended")
    scene.load(1, UNREACHED)
    renew_server_certificate(certificates)
    wait_for(lambda: _reached(scene), "no new connection after the renewal")
    scene.progress(100)


def _reached(scene: Stage) -> bool:
    """Whether a new connection comes about."""
    with scene.connect(scene.addresses[0]) as channel:
        stub = teacher_pb2_grpc.TeacherServiceStub(channel)
        try:
            stub.GetBudget(teacher_pb2.GetBudgetRequest(), timeout=60)
        except grpc.RpcError as error:
            scene.heard.note_refusal(error)
            return False
    return True


def _go_on(scene: Stage, requests: int) -> None:
    """So many more answers, while whatever ends is started again."""
    enough = len(scene.heard.receipts) + requests

    def enough_answers() -> bool:
        scene.revive()
        return len(scene.heard.receipts) >= enough

    wait_for(enough_answers, f"no progress: {dict(scene.heard.refusals)}")


def _ended(scene: Stage, host: int) -> int:
    """Waits for the end of the server, which its fault brings about; the exit code."""
    return scene.pool.end(scene.live.pop(host))


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """A file system of its own in `folder`; False where this process may mount none."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        yield False
        return
    if done.returncode != 0:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
