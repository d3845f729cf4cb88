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
class _Selection:
    """Some taps of the menu, and what one answer of each costs."""

    taps: tuple[ServedTap, ...]
    settings: tuple[bytes, ...]
    costs: tuple[tuple[int, int], ...]
    """Charge and noise draws."""
    meaning: bytes
    """What an answer is of, beside the samples: one request id has one meaning for ever."""

    @classmethod
    def of(cls, version: str, taps: Sequence[ServedTap]) -> _Selection:
        settings = tuple(tap.release.settings_bytes() for tap in taps)
        parts = b"".join(hashlib.sha256(part).digest() for part in settings)
        return cls(
            tuple(taps),
            settings,
            tuple((tap.release.charge, tap.release.draws) for tap in taps),
            hashlib.sha256(version.encode() + parts).digest(),
        )


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
        self._whole = _Selection.of(version, self._menu)

    def answer(
        self,
        client: str,
        request_id: str,
        samples: npt.NDArray[np.generic],
        taps: Sequence[str] = (),
    ) -> Answer:
        """The answers to `samples` [n, *input shape]; charges what was not answered before.

        taps: names of those that are wanted, in any order and each once; all of the menu when
        empty. An answer is of one sample and one tap, and is charged once for all time. Raises
        BudgetExhausted, RequestIdReused or LedgerFault, having charged and released nothing, and
        ValueError for a tap that is not on the menu.
        """
        asked = self._selection(taps)
        digests = [digest.tobytes() for digest in sample_digests(samples)]
        content = hashlib.sha256(asked.meaning + b"".join(digests)).digest()
        settled, charged = self._ledger.find(client, request_id, content), 0
        if settled is None:
            keys = [
                self._ledger.sample_key(digest, self._version, settings)
                for digest in digests
                for settings in asked.settings
            ]
            settled, charged = self._settle(client, request_id, content, samples, keys, asked)
        return Answer(_unpack(settled, asked, len(samples)), settled.receipt, charged)

    def _selection(self, taps: Sequence[str]) -> _Selection:
        """In the menu's order, so that the order of names means nothing."""
        unknown = set(taps) - {tap.name for tap in self._menu}
        if unknown:
            raise ValueError(f"not on the menu: {', '.join(sorted(unknown))}")
        chosen = [tap for tap in self._menu if tap.name in taps]
        if len(chosen) in (0, len(self._menu)):
            return self._whole
        return _Selection.of(self._version, chosen)

    def _settle(
        self,
        client: str,
        request_id: str,
        content: bytes,
        samples: npt.NDArray[np.generic],
        keys: list[bytes],
        asked: _Selection,
    ) -> tuple[Settlement, int]:
        """The settlement, and how many samples it charged for one tap at least."""
        costs = asked.costs * len(samples)
        stored = self._ledger.stored(keys)
        missing = {
            key: place for place, key in reversed(list(enumerate(keys))) if key not in stored
        }
        self._ledger.check(
            client,
            charge=sum(costs[place][0] for place in missing.values()),
            draws=sum(costs[place][1] for place in missing.values()),
        )
        width = len(asked.taps)
        rows = sorted({place // width for place in missing.values()})
        drawn = dict(stored)
        if rows:
            outputs = self._teacher.answers(np.array(samples[rows]))
            for column, tap in enumerate(asked.taps):
                # A sample may lack one tap and have another: what is stored is never drawn again.
                lacking = [
                    place for place, row in enumerate(rows) if keys[row * width + column] in missing
                ]
                if lacking:
                    released = release(tap.release, outputs[tap.name][:, lacking], self._noise)
                    for place, answer in zip(lacking, released, strict=True):
                        drawn[keys[rows[place] * width + column]] = _payload(answer)
        pending = [
            PendingAnswer(key, charge, draws, drawn[key], stored=key in stored)
            for key, (charge, draws) in zip(keys, costs, strict=True)
        ]
        settled = self._ledger.settle(client, request_id, content, pending, self._version)
        if settled.repeated or not settled.charged:
            return settled, 0
        # Fewer are new where another request stored some of them in between: as many at least.
        alone = settled.new == len(missing)
        return settled, len(rows) if alone else -(-settled.new // width)


def _unpack(
    settled: Settlement, asked: _Selection, count: int
) -> dict[str, npt.NDArray[np.float32]]:
    width = len(asked.taps)
    return {
        tap.name: np.frombuffer(b"".join(settled.payloads[column::width]), dtype="<f4").reshape(
            count, *tap.shape
        )
        for column, tap in enumerate(asked.taps)
    }


def _payload(row: npt.NDArray[np.float32]) -> bytes:
    return row.astype("<f4").tobytes()
