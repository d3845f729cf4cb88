"""kill -9 at random points of a query stream, again and again: nothing is lost, nothing twice.

Real server processes over real calls, with the rehearsal's synthetic teachers. Two clients ask
without a pause, for new samples and for earlier ones, and repeat each request until it is answered.
"""

import random
import time
from functools import partial
from pathlib import Path

import pytest

from benchmarks.faults.books import REHEARSED, options_of, read_books
from benchmarks.faults.servers import PATIENCE, Server, Servers, servers
from benchmarks.faults.stream import Heard, Stream
from privacy.ledger import Ledger
from privacy.ledger.database import Database


class Replicas:
    """One or two servers under a stream; the first of them is killed and started again."""

    def __init__(self, pool: Servers, count: int, chance: random.Random) -> None:
        self._pool = pool
        self._chance = chance
        # One after the other: the first makes the ledger.
        self._live = []
        for _ in range(count):
            server = pool.start()
            self._live.append((server, server.address()))

    def address(self, chance: random.Random) -> str:
        """Of any replica, dead or alive: the client finds out."""
        return chance.choice(self._live)[1]

    def kill_and_restart(self, heard: Heard) -> None:
        """kill -9 one of them, some answers and a moment later, and start another in its place."""
        place = self._chance.randrange(len(self._live))
        victim: Server = self._live[place][0]
        enough = len(heard.receipts) + self._chance.randint(0, 10)
        end = time.monotonic() + PATIENCE
        while len(heard.receipts) < enough:
            assert time.monotonic() < end, "the clients make no progress"
            time.sleep(0.001)
        time.sleep(self._chance.uniform(0.0, 0.02))
        self._pool.kill(victim)
        fresh = self._pool.start()
        self._live[place] = (fresh, fresh.address())


def kill_many(
    folder: Path, kills: int, replicas: int, chance: random.Random, *options: str
) -> Heard:
    """`kills` kills under two streams; everything that the clients heard."""
    heard = Heard()
    with servers(folder, *options_of(REHEARSED), *options) as pool:
        under_fire = Replicas(pool, replicas, chance)
        streams = []
        for first in (10**6, 2 * 10**6):
            own = random.Random(chance.getrandbits(32))
            streams.append(Stream(first, partial(under_fire.address, own), heard, own))
        for stream in streams:
            stream.start()
        for _ in range(kills):
            under_fire.kill_and_restart(heard)
        for stream in streams:
            stream.finish()
    return heard


def verify(folder: Path, heard: Heard) -> None:
    """The ledger that is left, against all that was ever received."""
    place, witness = folder / "ledger", folder / "ledger.witness.json"
    with Ledger.open(place, witness=witness) as ledger:
        assert ledger.rolled_back is None
    # Every request was repeated until it was answered: each sample is charged exactly once.
    assert read_books(place, witness, heard).broken == ()
    assert len(heard.receipts) > 0


@pytest.mark.timeout(600)
def test_thirty_kills(tmp_path: Path, chance: random.Random) -> None:
    verify(tmp_path, kill_many(tmp_path, 30, 1, chance))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_five_hundred_kills(tmp_path: Path, chance: random.Random) -> None:
    verify(tmp_path, kill_many(tmp_path, 500, 1, chance))


@pytest.mark.timeout(600)
def test_ten_kills_among_two_replicas(
    tmp_path: Path, postgresql: str, chance: random.Random
) -> None:
    _on_postgresql(tmp_path, postgresql, 10, chance)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_five_hundred_kills_among_two_replicas(
    tmp_path: Path, postgresql: str, chance: random.Random
) -> None:
    _on_postgresql(tmp_path, postgresql, 500, chance)


def _on_postgresql(folder: Path, url: str, kills: int, chance: random.Random) -> None:
    try:
        verify(folder, kill_many(folder, kills, 2, chance, "--database-url", url))
    finally:
        # None where the first server failed before it made a ledger: that failure is the news.
        server = Database.of(folder / "ledger").server
        if server is not None:
            server.drop()
