"""A process that settles requests until it is killed; test_crash.py starts and kills it.

    settling_child.py FOLDER WITNESS FIRST [POINT]

Prints "ask N" before and "got N PAYLOAD RECEIPT" after each request, as a service would send, from
several callers at once. With a POINT there is one caller, and it kills itself there, at the third
request it settles.
"""

import os
import signal
import sys
import threading
from itertools import count
from pathlib import Path
from typing import Any

from privacy.ledger import Ledger, PendingAnswer, additions, witness
from privacy.ledger.group import Group
from privacy.ledger.witness import Witness

CALLERS = 8


class Killer:
    """Kills this process at a point of the third request. The second of its samples is stored
    already, so that its group is written twice: as if all were new, and by what the tables hold."""

    def __init__(self, point: str, ledger: Ledger) -> None:
        self.requests = 0
        if point == "among the rows":
            self._wrap(additions, "insert_rows", call=5)
        elif point == "after the rows":
            self._wrap(Group, "write", call=2, after=True)
        elif point == "before the commit":
            self._wrap(ledger._writer._writing.dialect, "do_commit")
        elif point == "after the commit":
            self._wrap(ledger._writer._writing.dialect, "do_commit", after=True)
        elif point == "before the witness":
            self._wrap(Witness, "advance")
        elif point == "within the witness":
            self._wrap(witness.os, "fdatasync")
        elif point == "after the witness":
            self._wrap(Witness, "advance", after=True)
        else:
            raise ValueError(point)

    def _wrap(self, holder: Any, name: str, call: int = 1, after: bool = False) -> None:
        calls, original = 0, getattr(holder, name)

        def dying(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += self.requests == 3
            if calls == call and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **options)
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(holder, name, dying)


def main() -> None:
    folder, head, first = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    ledger = Ledger.open(folder, witness=head)
    assert ledger.rolled_back is None, ledger.rolled_back
    killer = Killer(sys.argv[4], ledger) if len(sys.argv) > 4 else None
    numbers, sending = count(first), threading.Lock()

    def say(line: str) -> None:
        with sending:
            print(line, flush=True)

    def serve() -> None:
        while True:
            number = next(numbers)
            say(f"ask {number}")
            if killer is not None:
                killer.requests += 1
            # Two samples, one of which the request before asked too.
            pending = [
                PendingAnswer(
                    ledger.sample_key(f"s{sample}".encode(), "v1", b""), 100, 10, os.urandom(16)
                )
                for sample in (number, number - 1)
            ]
            settled = ledger.settle("alice", f"r{number}", b"content", pending, "v1")
            sent = b"".join(settled.payloads).hex()
            say(f"got {number} {sent} {settled.receipt.to_json_bytes().hex()}")

    say("ready")
    threads = [threading.Thread(target=serve) for _ in range(1 if killer else CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
