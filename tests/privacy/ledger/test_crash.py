"""kill -9 in the middle of settling: charged once or not at all, and the same answer for ever."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from privacy.audit.ledger_check import check
from privacy.audit.log import folder_faults, parse_log
from privacy.ledger import Ledger, PendingAnswer
from privacy.receipts import Receipt

CHILD = Path(__file__).with_name("settling_child.py")


class Killed:
    """What a killed child had sent: requests asked, and payloads and receipts that got out."""

    def __init__(self, lines: list[str]) -> None:
        self.asked = [int(line.split()[1]) for line in lines if line.startswith("ask ")]
        self.sent: dict[int, bytes] = {}
        self.receipts: list[Receipt] = []
        for line in lines:
            # A line cut off by the kill was not sent.
            if line.startswith("got ") and line.endswith("\n"):
                _, number, payload, receipt = line.split()
                self.sent[int(number)] = bytes.fromhex(payload)
                self.receipts.append(Receipt.from_json_bytes(bytes.fromhex(receipt)))


def run_and_kill(place, first: int, point: str | None = None, after: float = 0.0) -> Killed:
    command = [sys.executable, str(CHILD), str(place.folder), str(place.witness), str(first)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        command + ([point] if point else []), stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        if point is None:
            assert child.stdout.readline() == "ready\n"
            time.sleep(after)
            child.kill()
        lines = child.stdout.readlines()
        assert child.wait() == -9
    return Killed(lines)


def ask(ledger: Ledger, number: int) -> bytes:
    """The same request again, with a fresh draw that must only be used if there was none."""
    pending = [
        PendingAnswer(ledger.sample_key(f"s{sample}".encode(), "v1", b""), 100, 10, bytes(16))
        for sample in (number, number - 1)
    ]
    return b"".join(ledger.settle("alice", f"r{number}", b"content", pending, "v1").payloads)


def verify(place, killed: Killed, earlier: list[Receipt]) -> None:
    """After the crash: retry what was under way, compare what was sent, audit the whole."""
    with place.open() as ledger:
        assert ledger.rolled_back is None
        for number, payload in killed.sent.items():
            assert ask(ledger, number) == payload
        for number in set(killed.asked) - set(killed.sent):
            first = ask(ledger, number)
            assert ask(ledger, number) == first
        requests = [entry.request_id for entry in ledger.entries()][1:]
        assert len(set(requests)) == len(requests)
        samples = {int(name[1:]) for name in requests}
        asked = samples | {number - 1 for number in samples}
        assert ledger.budget().spent == 100 * len(asked)
        log = parse_log(place.folder, list(ledger.log_lines()))
    receipts = [(place.folder, receipt) for receipt in [*earlier, *killed.receipts]]
    report = check(log, receipts=receipts, tables=folder_faults(place.folder, log))
    assert report.violations == ()
    assert report.receipts == len(receipts)


@pytest.mark.parametrize(
    ("point", "charged"),
    [
        ("among the rows", False),
        ("after the rows", False),
        ("before the commit", False),
        ("after the commit", True),
        ("before the witness", True),
        ("within the witness", True),
        ("after the witness", True),
    ],
)
def test_killed_at_a_known_point(place, plan, point: str, charged: bool) -> None:
    place.create(plan).close()
    killed = run_and_kill(place, 1, point)
    assert killed.asked == [1, 2, 3]
    assert sorted(killed.sent) == [1, 2]
    with place.open() as ledger:
        found = ledger.find("alice", "r3", b"content")
        assert (found is not None) == charged
        # Two samples of the first request, one new in each that follows.
        assert ledger.budget().spent == (400 if charged else 300)
        draws = [entry.draws for entry in ledger.entries()]
        assert draws == [0, 20, 10, 10][: len(draws)]
        if charged:
            assert ask(ledger, 3) == b"".join(found.payloads) != bytes(32)
    verify(place, killed, [])


def kill_at_random(place, plan, chance: random.Random, rounds: int) -> None:
    place.create(plan).close()
    receipts: list[Receipt] = []
    first = 1
    for _ in range(rounds):
        killed = run_and_kill(place, first, after=chance.uniform(0.0, 0.15))
        verify(place, killed, receipts)
        receipts += killed.receipts
        first = max([first, *killed.asked]) + 1


def test_killed_at_random_points(place, plan, chance) -> None:
    kill_at_random(place, plan, chance, rounds=4)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_at_random_points_a_hundred_times(place, plan, chance) -> None:
    kill_at_random(place, plan, chance, rounds=100)
