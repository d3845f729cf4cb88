"""What a ledger shows after a fault, held against everything that clients ever received."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.stream import Heard, answer_rows, query, samples
from ktan.digests import sample_digests
from privacy.audit.ledger_check import check
from privacy.audit.log import folder_faults, parse_log
from privacy.ledger import Ledger
from protos import teacher_pb2, teacher_pb2_grpc
from teacher_server.menu import ServedTap
from teacher_server.options import ServeOptions
from teacher_server.rehearsal.likeness import public_teacher, rehearsed_menu
from teacher_server.rehearsal.options import RehearsalOptions

REHEARSED = RehearsalOptions(tap=("hint:2:1",), teachers=3, radius=1000, unlimited=True)
"""What the servers of a scenario rehearse."""


def options_of(rehearsed: RehearsalOptions) -> list[str]:
    """The same as options of the command."""
    taps = [word for tap in rehearsed.tap for word in ("--tap", tap)]
    numbers = ("teachers", "radius", "epsilon")
    values = [word for name in numbers for word in (f"--{name}", str(getattr(rehearsed, name)))]
    return [*taps, *values, *["--unlimited"] * rehearsed.unlimited]


def price(rehearsed: RehearsalOptions) -> int:
    """Units that a sample's answer costs."""
    return sum(tap.release.charge for tap in _menu(rehearsed))


def _menu(rehearsed: RehearsalOptions) -> tuple[ServedTap, ...]:
    return rehearsed_menu(rehearsed, public_teacher(rehearsed), ServeOptions())


@dataclass(frozen=True)
class Books:
    """A ledger's totals. broken: what contradicts the promise, in words; empty when it was kept."""

    entries: int
    answers: int
    spent: int
    broken: tuple[str, ...]


def read_books(
    ledger_folder: Path, witness: Path, heard: Heard, rehearsed: RehearsalOptions = REHEARSED
) -> Books:
    """The ledger against all that was received. All requests were answered in the end."""
    broken = [
        f"{what} got {len(found)} {things}"
        for of, things in ((heard.answers, "answers"), (heard.receipts, "receipts"))
        for what, found in of.items()
        if len(found) != 1
    ]
    menu, version = _menu(rehearsed), public_teacher(rehearsed).version
    cost = price(rehearsed)
    with Ledger.open(ledger_folder, witness=witness, read_only=True) as ledger:
        if ledger.rolled_back is not None:
            broken.append(f"it opens exhausted: {ledger.rolled_back}")
        entries = [entry for entry in ledger.entries(1) if entry.kind == "answers"]
        asked = [entry.request_id for entry in entries]
        if sorted(asked) != sorted(heard.requests):
            twice = len(asked) - len(set(asked))
            broken.append(
                f"{twice} requests have two entries, {len(heard.requests.keys() - set(asked))} "
                f"that were answered have none, {len(set(asked) - heard.requests.keys())} that "
                "have one were never answered"
            )
        stored = sum(entry.details["new"] for entry in entries)
        spent = ledger.budget().spent
        if not cost * len(heard.answers) == sum(entry.charge for entry in entries) == spent:
            broken.append(f"{spent} units were spent on {len(heard.answers)} samples at {cost}")
        if stored != len(heard.answers) * len(menu):
            broken.append(
                f"{stored} answers are stored, clients have those of {len(heard.answers)} samples"
            )
        serials = sorted(heard.answers)
        digests = sample_digests(samples(serials))
        keys = [
            [
                ledger.sample_key(digest.tobytes(), version, tap.release.settings_bytes())
                for tap in menu
            ]
            for digest in digests
        ]
        held = ledger.stored([key for group in keys for key in group])
        for serial, group in zip(serials, keys, strict=True):
            if {b"".join(held.get(key, b"") for key in group)} != heard.answers[serial]:
                broken.append(f"the answer to sample {serial} is not the stored one")
        log = parse_log(str(ledger_folder), list(ledger.log_lines()))
    report = check(
        log,
        receipts=[(ledger_folder, receipt) for receipt in heard.all_receipts()],
        tables=folder_faults(ledger_folder, log),
    )
    broken += [violation.message for violation in report.violations]
    return Books(len(entries), stored, spent, tuple(broken))


def ask_again(stub: teacher_pb2_grpc.TeacherServiceStub, heard: Heard, most: int) -> list[str]:
    """Asks a server for what it, or another one, answered before; what was not free and the same.

    The `most` requests that were answered last, each under its own id and under a new one.
    """
    broken = []
    before = stub.GetBudget(teacher_pb2.GetBudgetRequest(), timeout=60).budget.spent
    for request_id, serials in list(heard.requests.items())[-most:]:
        same = stub.Query(query(request_id, serials), timeout=60)
        fresh_id = str(uuid.uuid4())
        fresh = stub.Query(query(fresh_id, serials), timeout=60)
        if {same.receipt} != heard.receipts[request_id]:
            broken.append(f"request {request_id} got another receipt when it came again")
        for response in (same, fresh):
            if response.charged_samples:
                broken.append(f"the samples of request {request_id} were charged again")
            rows = answer_rows(response, len(serials))
            if any({row} != heard.answers[s] for s, row in zip(serials, rows, strict=True)):
                broken.append(f"the samples of request {request_id} got other answers")
        heard.note(fresh_id, serials, fresh)
    after = stub.GetBudget(teacher_pb2.GetBudgetRequest(), timeout=60).budget.spent
    if after != before:
        broken.append(f"{after - before} units were charged for answers that were there")
    return broken
