"""Several processes debit one PostgreSQL ledger at once, and one may die: no unit too much."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Row

from privacy.audit.ledger_check import check
from privacy.audit.log import folder_faults, folder_lines, parse_log
from privacy.budget import BudgetPlan
from privacy.errors import LedgerFault
from privacy.ledger import lookup
from privacy.ledger.witness import Witness, read_heads
from privacy.receipts import Receipt, SignedHead, sign, verify
from tests.privacy.ledger.test_crash import CHILD as SETTLING
from tests.privacy.ledger.test_crash import Killed, ask
from tests.privacy.ledger.test_crash import verify as verify_after_crash

pytestmark = pytest.mark.parametrize("place", ["postgresql"], indirect=True)
REPLICA = Path(__file__).with_name("replica_child.py")
POINTS = {
    "after the rows": False,
    "before the commit": False,
    "after the commit": True,
    "within the witness": True,
}


def start(script: Path, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


class Replicas:
    """Two processes that serve the same ledger, one ledger after another."""

    def __init__(self) -> None:
        self.processes = [start(REPLICA) for _ in range(2)]

    def open(self, place) -> None:
        command = {"open": [str(place.folder), str(place.witness)]}
        assert self._tell([command, command]) == [None, None]

    def settle(self, requests: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        """Gives each replica its requests, both at once; what became of them, in the same order."""
        return self._tell([{"settle": mine} for mine in requests])

    def stop(self) -> None:
        for process in self.processes:
            process.stdin.close()
        assert [process.wait() for process in self.processes] == [0, 0]

    def _tell(self, commands: list[dict[str, Any]]) -> list[Any]:
        for process, command in zip(self.processes, commands, strict=True):
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in self.processes]


@pytest.fixture(scope="module")
def processes(postgresql: str) -> Iterator[Replicas]:
    replicas = Replicas()
    yield replicas
    replicas.stop()
    for process in replicas.processes:
        process.stdout.close()


@pytest.fixture
def two(place, processes) -> Callable[..., Replicas]:
    """Has two replicas open a new ledger of so many units."""

    def make(units: int, **options: Any) -> Replicas:
        place.create(BudgetPlan(4.0, 1e-5, "record", units, 10_000), **options).close()
        processes.open(place)
        return processes

    return make


def request(drawn_by: str, request_id: str, *samples: str, client: str = "alice") -> dict[str, Any]:
    return {
        "drawn_by": drawn_by,
        "request_id": request_id,
        "samples": samples,
        "client": client,
    }


def require_sound(place, outcomes: list[dict[str, Any]]) -> None:
    """The chain verifies, and every receipt that any replica handed out fits it."""
    receipts = [Receipt.from_json_bytes(item["receipt"].encode()) for item in outcomes]
    with place.open() as ledger:
        assert ledger.rolled_back is None
        for receipt in receipts:
            verify(receipt, ledger.public_key)
        assert ledger.budget().spent == sum(item["charged"] for item in outcomes)
    log = parse_log(str(place.folder), folder_lines(place.folder))
    held = [(place.folder, receipt) for receipt in receipts]
    report = check(log, receipts=held, tables=folder_faults(place.folder, log))
    assert report.violations == ()
    assert report.receipts == len(outcomes) > 0


def test_racing_replicas_spend_the_budget_to_the_last_unit_and_no_further(place, two) -> None:
    replicas = two(units=2000)
    outcomes = replicas.settle(
        [[request(name, f"{name}{n}", f"{name}{n}") for n in range(20)] for name in "ab"]
    )
    done = [item for mine in outcomes for item in mine if "receipt" in item]
    refused = [item for mine in outcomes for item in mine if "refused" in item]
    assert len(done) == len(refused) == 20
    # Every charge is of 100 units, so that whoever is refused finds nothing left.
    assert {item["refused"] for item in refused} == {0}
    require_sound(place, done)
    with place.open() as ledger:
        assert ledger.budget().left == 0


def test_a_cap_holds_over_all_replicas(place, two) -> None:
    replicas = two(units=100_000, default_cap=700)
    outcomes = replicas.settle(
        [[request(name, f"{name}{n}", f"{name}{n}") for n in range(10)] for name in "ab"]
    )
    done = [item for mine in outcomes for item in mine if "receipt" in item]
    assert len(done) == 7
    require_sound(place, done)


def test_a_sample_that_both_ask_at_once_is_drawn_and_charged_once(place, two) -> None:
    replicas = two(units=100_000)
    names = [f"s{number}" for number in range(24)]
    outcomes = replicas.settle(
        [
            [request(who, f"{who}{n}", *names[n : n + 4], client=who) for n in range(0, 24, 2)]
            for who in ("anna", "bert")
        ]
    )
    payloads: dict[str, set[str]] = {}
    for item in outcomes[0] + outcomes[1]:
        for name, payload in zip(item["request"]["samples"], item["payloads"], strict=True):
            payloads.setdefault(name, set()).add(payload)
    assert sorted(payloads) == sorted(names)
    assert all(len(found) == 1 for found in payloads.values())
    assert sum(item["charged"] for mine in outcomes for item in mine) == 2400
    require_sound(place, outcomes[0] + outcomes[1])


def test_a_request_that_both_get_at_once_is_settled_once(place, two) -> None:
    replicas = two(units=100_000)
    outcomes = replicas.settle(
        [[request(who, f"r{n}", f"a{n}", f"b{n}") for n in range(12)] for who in ("one", "other")]
    )
    for one, other in zip(*outcomes, strict=True):
        assert one["payloads"] == other["payloads"]
        assert one["receipt"] == other["receipt"]
        assert sorted((one["charged"], other["charged"])) == [0, 200]
    require_sound(place, outcomes[0] + outcomes[1])


@pytest.mark.parametrize("point", POINTS)
def test_one_replica_is_killed_and_the_other_goes_on(place, plan, point: str) -> None:
    with place.create(plan) as survivor:
        with start(SETTLING, place.folder, place.witness, "1", point) as child:
            killed = Killed(child.stdout.readlines())
            assert child.wait() == -9
        assert killed.asked == [1, 2, 3]
        assert sorted(killed.sent) == [1, 2]
        # What the other had sent stands, and what it had not is charged once, by now.
        found = survivor.find("alice", "r3", b"content")
        assert (found is not None) == POINTS[point]
        for number, payload in killed.sent.items():
            assert ask(survivor, number) == payload
        third = ask(survivor, 3)
        assert ask(survivor, 3) == third
        if found is not None:
            assert third == b"".join(found.payloads) != bytes(32)
        assert survivor.budget().spent == 400
        assert survivor.head().entry == 3
        ask(survivor, 4)
    verify_after_crash(place, killed, [])


def test_both_replicas_are_killed(place, plan) -> None:
    place.create(plan).close()
    # Their samples and request ids are far apart.
    children = [start(SETTLING, place.folder, place.witness, first) for first in ("1", "100000")]
    lines: list[list[str]] = [[], []]
    for child, read in zip(children, lines, strict=True):
        while sum(line.startswith("got") for line in read) < 15:
            read.append(child.stdout.readline())
            assert read[-1], "the child ended by itself"
    for child in children:
        child.kill()
    for child, read in zip(children, lines, strict=True):
        read.extend(child.stdout.readlines())
        assert child.wait() == -9
        child.stdin.close()
        child.stdout.close()
    first, second = map(Killed, lines)
    assert min(len(first.sent), len(second.sent)) >= 15
    verify_after_crash(place, first, second.receipts)
    verify_after_crash(place, second, first.receipts)


def test_a_ledger_opens_while_another_replica_is_busy(place, plan) -> None:
    """Its witness runs ahead of what the opening one has just read; that is no rollback."""
    place.create(plan).close()
    with start(SETTLING, place.folder, place.witness, "1") as busy:
        assert busy.stdout.readline() == "ready\n"
        for number in range(5):
            with place.open(read_only=number % 2 == 1) as ledger:
                assert ledger.rolled_back is None
            busy.stdout.readline()
        busy.kill()
        busy.stdout.read()


@pytest.mark.parametrize("restored", [False, True])
def test_a_reader_knows_a_busy_ledger_from_a_restored_one(
    place, plan, asker, monkeypatch, restored: bool
) -> None:
    """While the reader looks, the witness moves past what it reads."""
    read_state, writing = lookup.read_state, []
    with place.create(plan) as writer:
        asker.settle(writer, "r0", "s0")
        if restored:
            backup = place.copy("backup")
            asker.settle(writer, "r1", "s1")
            place.restore(backup)
        seen = read_heads(place.witness.read_bytes())[0]

        def late(connection: Connection) -> Row[Any]:
            state = read_state(connection)
            if not writing:
                writing.append(state.last_entry)
                head = sign(
                    SignedHead(seen.ledger_id, seen.entry + 1, bytes(32), 0), writer._keys.signing
                )
                Witness(place.witness, lambda _: None, lambda _: seen.entry_hash).advance(head)
            return state

        monkeypatch.setattr(lookup, "read_state", late)
        with place.open(read_only=True) as reader:
            assert (reader.rolled_back is not None) == restored
        assert writing == [1]


def test_a_server_that_goes_back_in_time_stops_every_replica(place, plan, asker) -> None:
    """A standby that lagged takes over, or a backup is restored, while replicas run."""
    with place.create(plan) as one, place.open() as other:
        asker.settle(other, "r0", "s0")
        backup = place.copy("standby")
        for number in range(1, 4):
            asker.settle(one, f"r{number}", f"s{number}")
        place.restore(backup)
        for replica in (other, one):
            with pytest.raises(LedgerFault, match="older"):
                asker.settle(replica, "r9", "s3", payload=b"a second draw")
    with place.open() as again:
        assert "restored from an older copy" in again.rolled_back
