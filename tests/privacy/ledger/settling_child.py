"""A process that settles requests until it is killed; test_crash.py starts and kills it.

    settling_child.py FOLDER WITNESS FIRST [POINT]

Prints "ask N" before and "got N PAYLOAD RECEIPT" after each request, as a service would send. With
a POINT it kills itself there, at the third request it settles.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from privacy.ledger import Ledger, PendingAnswer, durable, transaction
from privacy.ledger.witness import Witness


def kill_at(point: str, ledger: Ledger) -> None:
    """Arms the kill: the wrapped function dies at its third call."""

    def wrap(holder: Any, name: str, after: bool = False) -> None:
        calls, original = 0, getattr(holder, name)

        def dying(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 3 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **options)
            if calls == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(holder, name, dying)

    if point == "after the debit":
        wrap(transaction, "append", after=True)
    elif point == "after the receipt":
        wrap(transaction, "write_receipt", after=True)
    elif point == "before the commit":
        wrap(ledger._engine.dialect, "do_commit")
    elif point == "after the commit":
        wrap(ledger._engine.dialect, "do_commit", after=True)
    elif point == "before the witness":
        wrap(Witness, "write")
    elif point == "within the witness":
        wrap(durable.os, "replace")
    elif point == "after the witness":
        wrap(Witness, "write", after=True)
    else:
        raise ValueError(point)


def main() -> None:
    folder, witness, first = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    ledger = Ledger.open(folder, witness=witness)
    assert ledger.rolled_back is None, ledger.rolled_back
    if len(sys.argv) > 4:
        kill_at(sys.argv[4], ledger)
    print("ready", flush=True)
    for number in range(first, first + 10_000):
        print(f"ask {number}", flush=True)
        # Two samples, one of which the request before asked too.
        pending = [
            PendingAnswer(
                ledger.sample_key(f"s{sample}".encode(), "v1", b""), 100, 10, os.urandom(16)
            )
            for sample in (number, number - 1)
        ]
        settled = ledger.settle("alice", f"r{number}", b"content", pending, "v1")
        sent = b"".join(settled.payloads).hex()
        print(f"got {number} {sent} {settled.receipt.to_json_bytes().hex()}", flush=True)


if __name__ == "__main__":
    main()
