"""From validated samples to settled answers: look up, run the teacher, release, settle.

No gRPC here: the order of the steps is the promise, and is testable without a wire.

    find the requests  →  find stored releases  →  check the budget  →  teacher  →  release
    →  durable transactions, as few as can be (debits, answers, entries, receipts)  →  return

Requests go through these steps together, as many as come; each keeps its own meaning, charge and
receipt, and what is refused to one is refused to nobody else. Nothing that a teacher computed
leaves `Answerer.settle` but what the ledger has made durable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ktan.digests import content_digests
from privacy.ledger import Ledger, Look, PendingAnswer, Settlement
from privacy.noise import NoiseSource
from privacy.receipts import Receipt
from privacy.release import release
from teacher_server.menu import ServedTap


class PrivateTeacher(Protocol):
    """k teachers, as arrays: whatever computes them stays behind this."""

    def answers(
        self, samples: npt.NDArray[np.generic]
    ) -> Mapping[str, npt.NDArray[np.floating[Any]]]:
        """Per tap [k, n, *shape], not bounded, for samples [n, *input shape] of its own copy.

        Called by several threads at once.
        """


@dataclass(frozen=True, eq=False)
class Question:
    """What one request asks, validated.

    samples: [n, *input shape]. taps: names of those that are wanted, in any order and each once;
    all of the menu when empty.
    """

    client: str
    request_id: str
    samples: npt.NDArray[np.generic]
    taps: tuple[str, ...] = ()


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


Outcome = Answer | Exception
"""What became of a question: an answer, or the refusal that its caller gets."""


@dataclass(eq=False)
class _Case:
    """One question on its way.

    keys: of its answers, samples outermost. lacking: places among them, each key once, whose
    answers were not stored. settled: it was settled before. refusal: it is not answered.
    """

    question: Question
    asked: _Selection
    digests: list[bytes]
    content: bytes
    keys: list[bytes] = field(default_factory=list)
    lacking: list[int] = field(default_factory=list)
    settled: Settlement | None = None
    refusal: Exception | None = None

    @property
    def open(self) -> bool:
        """Neither settled nor refused yet."""
        return self.settled is None and self.refusal is None

    @property
    def rows(self) -> set[int]:
        """Samples that lack one tap at least."""
        width = len(self.asked.taps)
        return {place // width for place in self.lacking}


@dataclass(frozen=True, eq=False)
class Drawn:
    """Questions whose answers are drawn in memory and not paid for; for `Answerer.settle` only."""

    cases: Sequence[_Case]
    payloads: Mapping[bytes, bytes]
    stored: frozenset[bytes]


class Answerer:
    """Answers samples under a ledger. Thread-safe: called from the server's worker threads."""

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

        An answer is of one sample and one tap, and is charged once for all time. Raises
        BudgetExhausted, RequestIdReused, LedgerUnreachable or LedgerUnreadable, having charged and
        released nothing; LedgerFault, having released nothing; and ValueError for a tap that is not
        on the menu.
        """
        question = Question(client, request_id, samples, tuple(taps))
        (outcome,) = self.settle([self.draw([question])])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def draw(self, questions: Sequence[Question]) -> Drawn:
        """Everything but the charge: the teacher is asked once, about all samples that are new.

        A refusal is kept for `settle` to return. Raises LedgerFault, LedgerUnreachable or
        LedgerUnreadable, and whatever a teacher raises.
        """
        cases = [self._case(question) for question in questions]
        # One look: three questions, one state of the ledger.
        with self._ledger.look() as look:
            stored = self._find(cases, look)
        payloads = stored | self._release([case for case in _open(cases) if case.lacking])
        return Drawn(cases, payloads, frozenset(stored))

    def _find(self, cases: Sequence[_Case], look: Look) -> dict[bytes, bytes]:
        """What was settled, stored or is refused before the teacher works; key → stored payload."""
        named = [(case.question.client, case.question.request_id, case.content) for case in cases]
        for case, found in zip(cases, look.find_all(named), strict=True):
            if isinstance(found, Exception):
                case.refusal = found
            else:
                case.settled = found
        open_cases = _open(cases)
        for case in open_cases:
            case.keys = self._ledger.sample_keys(case.digests, self._version, case.asked.settings)
        stored: dict[bytes, bytes] = {}
        looked = look.stored_all([case.keys for case in open_cases]) if open_cases else []
        for case, own in zip(open_cases, looked, strict=True):
            if isinstance(own, Exception):
                case.refusal = own
                continue
            stored |= own
            places = dict(zip(reversed(case.keys), reversed(range(len(case.keys))), strict=True))
            case.lacking = sorted(place for key, place in places.items() if key not in own)
        self._refuse_uncovered(_open(open_cases), look)
        return stored

    def settle(self, drawn: Sequence[Drawn]) -> list[Outcome]:
        """Makes everything durable in as few transactions as can be; each question's own outcome,
        in order.

        Raises LedgerFault: then nothing of it may be sent.
        """
        cases = [(case, part) for part in drawn for case in part.cases]
        due = [(case, part) for case, part in cases if case.open]
        requests = [
            self._ledger.request(
                case.question.client,
                case.question.request_id,
                case.content,
                [
                    PendingAnswer(key, charge, draws, part.payloads[key], stored=key in part.stored)
                    for key, (charge, draws) in zip(
                        case.keys, case.asked.costs * len(case.digests), strict=True
                    )
                ],
                self._version,
            )
            for case, part in due
        ]
        for (case, _), outcome in zip(due, self._ledger.settle_all(requests), strict=True):
            if isinstance(outcome, Exception):
                case.refusal = outcome
            else:
                case.settled = outcome
        return [case.refusal or _answer(case) for case, _ in cases]

    def _case(self, question: Question) -> _Case:
        asked = self._selection(question.taps)
        digests = content_digests(question.samples)
        content = hashlib.sha256(asked.meaning + b"".join(digests)).digest()
        return _Case(question, asked, digests, content)

    def _selection(self, taps: Sequence[str]) -> _Selection:
        """In the menu's order, so that the order of names means nothing."""
        if not taps:
            return self._whole
        unknown = set(taps) - {tap.name for tap in self._menu}
        if unknown:
            raise ValueError(f"not on the menu: {', '.join(sorted(unknown))}")
        chosen = [tap for tap in self._menu if tap.name in taps]
        if len(chosen) == len(self._menu):
            return self._whole
        return _Selection.of(self._version, chosen)

    def _refuse_uncovered(self, cases: Sequence[_Case], look: Look) -> None:
        """Before the teacher works for a charge that could not be made now."""
        charges = []
        for case in cases:
            costs = case.asked.costs * len(case.digests)
            charges.append(
                (
                    case.question.client,
                    sum(costs[place][0] for place in case.lacking),
                    sum(costs[place][1] for place in case.lacking),
                )
            )
        if charges:
            for case, refusal in zip(cases, look.check_all(charges), strict=True):
                case.refusal = refusal

    def _release(self, cases: Sequence[_Case]) -> dict[bytes, bytes]:
        """Key → payload of what these cases lack; a sample that several ask about is drawn once."""
        row_of: dict[bytes, int] = {}
        samples: list[npt.NDArray[np.generic]] = []
        wanted: dict[str, dict[bytes, int]] = {}
        taps: dict[str, ServedTap] = {}
        for case in cases:
            width = len(case.asked.taps)
            rows_of_taps = []
            for tap in case.asked.taps:
                taps[tap.name] = tap
                rows_of_taps.append(wanted.setdefault(tap.name, {}))
            for place in case.lacking:
                sample = place // width
                row = row_of.setdefault(case.digests[sample], len(samples))
                if row == len(samples):
                    samples.append(case.question.samples[sample])
                # A sample may lack one tap and have another: what is stored is never drawn again.
                rows_of_taps[place % width][case.keys[place]] = row
        payloads: dict[bytes, bytes] = {}
        if samples:
            outputs = self._teacher.answers(np.stack(samples))
            for name, rows in wanted.items():
                if not rows:
                    continue
                places = list(rows.values())
                values = outputs[name]
                if places != list(range(len(samples))):
                    values = values[:, places]
                released = release(taps[name].release, values, self._noise)
                payloads.update(zip(rows, _payloads(released), strict=True))
        return payloads


def _open(cases: Sequence[_Case]) -> list[_Case]:
    return [case for case in cases if case.open]


def _answer(case: _Case) -> Answer:
    assert case.settled is not None
    settled, asked, count = case.settled, case.asked, len(case.digests)
    width = len(asked.taps)
    charged = 0
    if settled.charged and not settled.repeated:
        # Fewer are new where another request stored some of them in between: as many at least.
        alone = settled.new == len(case.lacking)
        charged = len(case.rows) if alone else -(-settled.new // width)
    taps = {
        tap.name: np.frombuffer(b"".join(settled.payloads[column::width]), dtype="<f4").reshape(
            count, *tap.shape
        )
        for column, tap in enumerate(asked.taps)
    }
    return Answer(taps, settled.receipt, charged)


def _payloads(rows: npt.NDArray[np.float32]) -> list[bytes]:
    """Each row's little-endian bytes."""
    exact = np.ascontiguousarray(rows, dtype="<f4")
    whole, size = exact.tobytes(), exact[0].nbytes
    return [whole[start : start + size] for start in range(0, len(whole), size)]
