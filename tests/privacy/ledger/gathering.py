"""Callers who all wait while another one's commit is held up, and then share the next group."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from privacy.ledger import Ledger
from privacy.ledger.witness import Witness
from privacy.receipts import SignedHead

PATIENCE = 120.0


class Gathering:
    """Holds a ledger's first commit at the witness until everybody else has come."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger = ledger
        self.heads: list[int] = []
        """Entry of each head that the witness was given: one per group."""
        self._held, self._go = threading.Event(), threading.Event()
        advance = Witness.advance

        def held(witness: Witness, head: SignedHead) -> None:
            self.heads.append(head.entry)
            if not self._held.is_set():
                self._held.set()
                assert self._go.wait(PATIENCE)
            advance(witness, head)

        monkeypatch.setattr(Witness, "advance", held)

    def run(
        self,
        first: Callable[[], Any],
        *others: Callable[[], Any],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[Future[Any]]:
        """Futures of all calls, done: `others` joined in this order while `first` was held.

        meanwhile: called when all others wait, before `first` goes on.
        """
        with ThreadPoolExecutor(len(others) + 1) as pool:
            futures = [pool.submit(first)]
            assert self._held.wait(PATIENCE)
            for number, call in enumerate(others, start=1):
                futures.append(pool.submit(call))
                until(lambda number=number: len(self.ledger._writer._waiting) >= number)
            meanwhile()
            self._go.set()
        return futures


def until(condition: Callable[[], bool]) -> None:
    """Returns as soon as the condition holds; fails when it does not come to."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.001)
