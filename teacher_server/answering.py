"""From validated samples to a settled answer: look up, run the teacher, release, settle.

No gRPC here: the order of the steps is the promise, and is testable without a wire.

    find the request  →  find stored releases  →  check the budget  →  teacher  →  release
    →  one durable transaction (debit, answers, entry, receipt)  →  return

Nothing that a teacher computed leaves `Answerer.answer` but what the ledger has made durable.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ktan.digests import sample_digests
from privacy.ledger import Ledger, PendingAnswer, Settlement
from privacy.noise import NoiseSource
from privacy.receipts import Receipt
from privacy.release import release
from teacher_server.menu import ServedTap


class PrivateTeacher(Protocol):
    """k teachers, as arrays: whatever computes them stays behind this."""

    def answers(
        self, samples: npt.NDArray[np.generic]
    ) -> Mapping[str, npt.NDArray[np.floating[Any]]]:
        """Per tap [k, n, *shape], not bounded, for samples [n, *input shape] of its own copy."""


class InTurn:
    """A teacher that is asked at most `at_once` times at once: its networks share the cores.

    Requests that wait for their turn, or that settle, hold no core.
    """

    def __init__(self, teacher: PrivateTeacher, at_once: int):
        self._teacher = teacher
        self._turns = threading.BoundedSemaphore(at_once)

    def answers(
        self, samples: npt.NDArray[np.generic]
    ) -> Mapping[str, npt.NDArray[np.floating[Any]]]:
        """What the teacher answers, when it is this caller's turn."""
        with self._turns:
            return self._teacher.answers(samples)


@dataclass(frozen=True)
class Answer:
    """What leaves: per tap float32 [samples, *shape], the receipt, how many samples it charged."""

    taps: dict[str, npt.NDArray[np.float32]]
    receipt: Receipt
    charged_samples: int


class Answerer:
    """Answers samples under a ledger. Thread-safe: called from the server's executor threads."""

    def __init__(
        self,
        teacher: PrivateTeacher,
        version: str,
        menu: Sequence[ServedTap],
        ledger: Ledger,
        noise: NoiseSource,
    ):
        self._teacher = teacher
        self._version = version
        self._menu = tuple(menu)
        self._ledger = ledger
        self._noise = noise
        self._settings = tuple(tap.release.settings_bytes() for tap in self._menu)
        self._costs = tuple((tap.release.charge, tap.release.draws) for tap in self._menu)
        # What an answer is of, beside the samples: one request id has one meaning for ever.
        settings = b"".join(hashlib.sha256(part).digest() for part in self._settings)
        self._meaning = hashlib.sha256(version.encode() + settings).digest()

    def answer(self, client: str, request_id: str, samples: npt.NDArray[np.generic]) -> Answer:
        """The answers to `samples` [n, *input shape]; charges the samples not answered before.

        Raises BudgetExhausted, RequestIdReused or LedgerFault, having charged and released nothing.
        """
        digests = [digest.tobytes() for digest in sample_digests(samples)]
        content = hashlib.sha256(self._meaning + b"".join(digests)).digest()
        settled = self._ledger.find(client, request_id, content)
        if settled is None:
            keys = [
                self._ledger.sample_key(digest, self._version, settings)
                for digest in digests
                for settings in self._settings
            ]
            settled = self._settle(client, request_id, content, samples, keys)
        return self._unpack(settled, len(samples))

    def _settle(
        self,
        client: str,
        request_id: str,
        content: bytes,
        samples: npt.NDArray[np.generic],
        keys: list[bytes],
    ) -> Settlement:
        costs = self._costs * len(samples)
        stored = self._ledger.stored(keys)
        missing = {
            key: place for place, key in reversed(list(enumerate(keys))) if key not in stored
        }
        self._ledger.check(
            client,
            charge=sum(costs[place][0] for place in missing.values()),
            draws=sum(costs[place][1] for place in missing.values()),
        )
        width = len(self._menu)
        places = sorted({place // width for place in missing.values()})
        drawn = dict(stored)
        if places:
            outputs = self._teacher.answers(np.array(samples[places]))
            for column, tap in enumerate(self._menu):
                released = release(tap.release, outputs[tap.name], self._noise)
                for place, row in zip(places, released, strict=True):
                    drawn.setdefault(keys[place * width + column], _payload(row))
        pending = [
            PendingAnswer(key, charge, draws, drawn[key], stored=key in stored)
            for key, (charge, draws) in zip(keys, costs, strict=True)
        ]
        return self._ledger.settle(client, request_id, content, pending, self._version)

    def _unpack(self, settled: Settlement, count: int) -> Answer:
        width = len(self._menu)
        taps = {
            tap.name: np.frombuffer(b"".join(settled.payloads[column::width]), dtype="<f4").reshape(
                count, *tap.shape
            )
            for column, tap in enumerate(self._menu)
        }
        charged = 0 if settled.repeated or not settled.charged else -(-settled.new // width)
        return Answer(taps, settled.receipt, charged)


def _payload(row: npt.NDArray[np.float32]) -> bytes:
    return row.astype("<f4").tobytes()
