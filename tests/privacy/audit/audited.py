"""A log to tamper with: five requests of two clients, a cap, a training run; all receipts kept."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from privacy.audit.ledger_check import LedgerReport, check
from privacy.audit.log import parse_log
from privacy.budget import BudgetPlan
from privacy.composition import DpSgdRun
from privacy.key_history import KeyHistory
from privacy.ledger import Ledger, PendingAnswer
from privacy.ledger.chain import Entry
from privacy.ledger.keys import LedgerKeys
from privacy.receipts import Receipt, SignedHead, sign

LAST = 7
"""Number of the last entry."""


@dataclass
class Case:
    """A closed ledger, its exported lines, and what clients and witness kept of it."""

    folder: Path
    witness: Path
    lines: list[bytes]
    receipts: list[Receipt]
    heads: list[SignedHead]

    @property
    def keys(self) -> LedgerKeys:
        """What the custodian could sign with."""
        return LedgerKeys.read(self.folder)

    def check(self, lines: list[bytes] | None = None, **evidence: Any) -> LedgerReport:
        log = parse_log("log.jsonl", self.lines if lines is None else lines)
        return check(log, **evidence)

    @property
    def kept_receipts(self) -> list[tuple[Path, Receipt]]:
        """Every receipt, with the file that a client would keep it in."""
        return [(Path(f"{item.request_id}.json"), item) for item in self.receipts]

    def with_receipts(self, lines: list[bytes] | None = None, **options: Any) -> LedgerReport:
        return self.check(lines, receipts=self.kept_receipts, **options)

    def edited(self, at: int, **changes: Any) -> list[bytes]:
        """The lines with one entry changed; its hash is left as it was."""
        lines = list(self.lines)
        value = json.loads(lines[at + 1])
        value["entry"].update(changes)
        lines[at + 1] = dump(value)
        return lines

    def rewritten(
        self,
        change: Callable[[list[Entry]], list[Entry]],
        signer: LedgerKeys | None = None,
    ) -> list[bytes]:
        """A log that holds together after `change`: numbers, sums and hashes done anew.

        With a signer the head is signed anew too, as only the custodian could.
        """
        entries = [Entry.from_json(json.loads(line)["entry"]) for line in self.lines[1:-1]]
        done: list[Entry] = []
        for number, entry in enumerate(change(entries)):
            before = done[-1] if done else None
            done.append(
                replace(
                    entry,
                    number=number,
                    previous=before.hash() if before else bytes(32),
                    spent_after=(before.spent_after if before else 0) + entry.charge,
                    draws_after=(before.draws_after if before else 0) + entry.draws,
                )
            )
        lines = [self.lines[0]]
        lines += [dump({"entry": item.to_json(), "hash": item.hash().hex()}) for item in done]
        if signer is None:
            return [*lines, self.lines[-1]]
        head = SignedHead(
            json.loads(self.lines[0])["ledger_id"],
            done[-1].number,
            done[-1].hash(),
            done[-1].spent_after,
        )
        return [*lines, dump({"head": sign(head, signer.signing).to_json()})]


def known(*keys: LedgerKeys | bytes) -> list[tuple[str, KeyHistory]]:
    """Keys that an auditor was given, each by itself."""
    raw = [key if isinstance(key, bytes) else key.public for key in keys]
    return [("given", KeyHistory.starting_with("", key)) for key in raw]


def dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def audited(place: Path) -> Case:
    """The ledger that the tests tamper with, in `place`."""
    run = DpSgdRun(0.01, 4.0, 10)
    plan = BudgetPlan(2.0, 1e-5, "record", 10_000_000, 1000, (run,))
    folder, witness = place / "host" / "ledger", place / "elsewhere" / "head.json"
    receipts, heads = [], []
    with Ledger.create(folder, dataset_id="glyphs", plan=plan, witness=witness) as ledger:

        def ask(client: str, request_id: str, *samples: str) -> None:
            pending = [
                PendingAnswer(
                    ledger.sample_key(name.encode(), "v1", b""), 100_000, 10, name.encode() * 5
                )
                for name in samples
            ]
            settled = ledger.settle(client, request_id, b"content", pending, "v1")
            receipts.append(settled.receipt)
            heads.append(ledger.head())

        ask("alice", "r1", "a", "b")
        ledger.charge_training(run, "teacher-1", "ab" * 32)
        ask("bob", "r2", "b", "c")
        ledger.set_cap("bob", 2_000_000)
        ask("alice", "r3", "a")
        ask("alice", "r4", "d", "e")
        ask("bob", "r5", "f")
        lines = list(ledger.log_lines())
    assert ledger.head().entry == LAST
    return Case(folder, witness, lines, receipts, heads)
