"""Faults while clients ask, one after another: what clients saw, what the ledger shows.

    python -m benchmarks.faults [NAME …]

Real `teacher-server rehearse` processes, with the wire, the release and the ledger of `serve`,
asked without a pause by clients that send each request until it is answered. After each fault
every server that lives must answer 100 earlier requests again, free and byte for byte; then the
ledger is held against all that was ever received (`books.py`). Without PostgreSQL, without its
programs, without the right to mount a small file system, or without a C compiler, the scenarios
that need them are left out, and the table says so.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from benchmarks.faults import scenarios
from benchmarks.faults.certificates import (
    client_files,
    end_server_certificate,
    make_certificates,
)
from benchmarks.faults.clock import Clock
from benchmarks.faults.database import SERVER, OwnDatabase, own_database, own_server
from benchmarks.faults.servers import zygote
from benchmarks.faults.stage import FAILING, Stage, stage
from benchmarks.faults.stream import secured

RESULT: Final = Path(__file__).parents[1] / "results" / "faults.json"
COMMAND: Final = "python -m benchmarks.faults"
_HEADINGS: Final = (
    "fault", "what clients saw", "servers that ended", "what the ledger shows", "promise kept",
)  # fmt: skip
_DISK_MEGABYTES: Final = 64
_CERTIFICATE_SECONDS: Final = 6.0


class Impossible(Exception):
    """This machine cannot play the scenario; says what is missing."""


@dataclass(frozen=True)
class Row:
    """What became of one scenario.

    refused: status and reason → tries of clients that ended so. waited: the longest time from a
    request's first try to its answer, in seconds. ended: exit code → servers that ended by
    themselves. entries, samples: of the ledger, afterwards. broken: what contradicts the promise.
    """

    fault: str
    requests: int
    refused: dict[str, int]
    waited: float
    ended: dict[str, int]
    entries: int
    samples: int
    broken: list[str]
    seconds: float

    @property
    def cells(self) -> list[str]:
        """As a line of the table."""
        refused = ", ".join(f"{count} × {name}" for name, count in self.refused.items())
        ended = ", ".join(f"{count} × {code}" for code, count in self.ended.items())
        return [
            self.fault,
            f"{self.requests} answered; {refused or 'no refusal'}; waited {self.waited:.1f} s",
            ended or "–",
            f"{self.entries} entries, {self.samples} samples charged",
            "no: " + "; ".join(self.broken[:3]) if self.broken else "yes",
        ]


def play(folder: Path, fault: str, scenario: Callable[[Stage], None], **options: Any) -> Row:
    """Runs one scenario in a new folder."""
    begun = time.monotonic()
    with stage(folder, **options) as scene:
        scenario(scene)
        books = scene.finish()
    heard = scene.heard
    return Row(
        fault,
        len(heard.receipts),
        dict(heard.refusals.most_common()),
        round(heard.longest_wait, 2),
        {str(code): count for code, count in scene.ends.items()},
        books.entries,
        books.answers,
        list(books.broken),
        round(time.monotonic() - begun, 1),
    )


@contextmanager
def database() -> Iterator[OwnDatabase]:
    """One that nobody else uses. Raises Impossible."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(own_database(SERVER))
        except psycopg.OperationalError:
            raise Impossible("no PostgreSQL; KTAN_TEST_POSTGRESQL names one") from None
        yield found


def killed_server(folder: Path) -> Row:
    return play(folder, "server killed (SIGKILL) 5 times", scenarios.killed_server)


def killed_replica(folder: Path) -> Row:
    with database() as own:
        return play(
            folder, "one of two replicas killed for good", scenarios.killed_replica,
            hosts=2, database_url=own.url,
        )  # fmt: skip


def drained(folder: Path) -> Row:
    return play(folder, "SIGTERM under load, 5 times", scenarios.drained, clients=8)


def lost_connections(folder: Path) -> Row:
    with database() as own:
        return play(
            folder,
            "two replicas; database connections ended 10 times",
            lambda scene: scenarios.lost_connections(scene, own),
            hosts=2, database_url=own.url, passing=FAILING,
        )  # fmt: skip


def crashed_database(folder: Path) -> Row:
    with own_server() as server:
        if server is None:
            raise Impossible("no PostgreSQL programs (initdb, postgres)")
        return play(
            folder,
            "two replicas; database crashed and recovered 3 times",
            lambda scene: scenarios.crashed_database(scene, server),
            hosts=2, database_url=server.url, passing=FAILING,
        )  # fmt: skip


def frozen_replica(folder: Path) -> Row:
    with database() as own:
        return play(
            folder,
            "one of two replicas frozen for 40 s in a transaction",
            lambda scene: scenarios.frozen_replica(scene, own),
            hosts=2, database_url=own.url, passing=FAILING, deadline=5.0,
        )  # fmt: skip


def full_disk(folder: Path) -> Row:
    with scenarios.small_disk(folder / "host-0", _DISK_MEGABYTES) as mounted:
        if not mounted:
            raise Impossible("no right to mount a small file system")
        return play(
            folder,
            "the ledger's disk full",
            lambda scene: scenarios.full_disk(scene, folder / "host-0"),
            passing=FAILING,
        )


def limited_file(folder: Path) -> Row:
    return play(folder, "the ledger's files cannot grow", scenarios.limited_file, passing=FAILING)


def lost_witness(folder: Path) -> Row:
    with database() as own:
        return play(
            folder, "two replicas; the witness's storage gone and back", scenarios.lost_witness,
            hosts=2, database_url=own.url, passing=FAILING,
        )  # fmt: skip


def turned_clock(folder: Path) -> Row:
    folder.mkdir()
    try:
        clock = Clock(folder)
    except FileNotFoundError as error:
        raise Impossible(str(error)) from None
    with zygote(clock) as forking:
        return play(
            folder,
            "clock set back 3 days, then 10 years forward",
            lambda scene: scenarios.turned_clock(scene, clock),
            forking=forking,
        )


def expired_certificate(folder: Path) -> Row:
    certificates = folder / "certs"
    make_certificates(certificates)
    end = end_server_certificate(certificates, _CERTIFICATE_SECONDS)
    return play(
        folder,
        "server's certificate expired, then renewed",
        lambda scene: scenarios.expired_certificate(scene, certificates, end),
        certificates=certificates / "server",
        connect=secured(client_files(certificates)),
    )


SCENARIOS: Final = (
    killed_server, killed_replica, drained, lost_connections, crashed_database, frozen_replica,
    full_disk, limited_file, lost_witness, turned_clock, expired_certificate,
)  # fmt: skip


def main(names: list[str]) -> int:
    """Plays the scenarios of these names, all when there are none; 1 where a promise was broken."""
    known = {scenario.__name__: scenario for scenario in SCENARIOS}
    if unknown := set(names) - known.keys():
        print(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return 2
    print(
        "| fault | what clients saw | servers that ended | what the ledger shows | promise kept |"
    )
    print("|---|---|---|---|---|", flush=True)
    rows, left_out = [], {}
    for name in names or known:
        with tempfile.TemporaryDirectory(prefix="ktan-faults-") as folder:
            try:
                row = known[name](Path(folder) / name)
            except Impossible as missing:
                left_out[name] = str(missing)
                continue
        rows.append(row)
        print(f"| {' | '.join(row.cells)} |", flush=True)
    for name, why in left_out.items():
        print(f"left out: {name}: {why}")
    if not names:
        figures = {
            "date": time.strftime("%Y-%m-%d"),
            "command": COMMAND,
            "rows": [asdict(row) for row in rows],
            "left_out": left_out,
        }
        RESULT.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    return int(any(row.broken for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
