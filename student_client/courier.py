"""Carries begun requests to the service and their answers to the store, several at a time.

Whatever is written, verified or said is so by one thread, in the order in which answers come; other
threads only wait for the service. Requests share no sample and tap that is missing, so that their
order changes nothing of what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ktan.answers import AnswerStore, PendingRequest
from ktan.errors import UserError
from student_client.description import TeacherDescription
from student_client.errors import RequestRefused
from student_client.flight import CalledOff, Flight, Landing
from student_client.patience import patiently
from student_client.progress import Progress
from student_client.remote import RemoteTeacher, Reply
from student_client.verification import Verifier

if TYPE_CHECKING:
    from student_client.fetching import Pool, Samples


@dataclass(frozen=True)
class Fetched:
    """What one `fetch` did."""

    requests: int = 0
    samples: int = 0
    """Samples whose answers came."""
    charged: int = 0
    """Of those, the ones that the service charged now rather than had answered before."""
    charge: int = 0
    """What they cost, by their receipts."""


Refused = Callable[[PendingRequest, RequestRefused], None]


@dataclass
class Courier:
    """Has up to `in_flight` requests under way."""

    teacher: RemoteTeacher
    description: TeacherDescription
    store: AnswerStore
    verifier: Verifier
    pool: Pool
    progress: Progress
    in_flight: int
    fetched: Fetched = Fetched()
    _epsilon_spent: float = 0.0

    def resume(self, requests: Iterator[PendingRequest]) -> None:
        """Sends what an earlier run began, which may be more than is wanted now, or affordable."""
        self.carry(filter(self._known, requests), self._forget)

    def carry(self, requests: Iterator[PendingRequest], refused: Refused | None = None) -> None:
        """Sends `requests`, each of which is on disk once it is drawn, and stores their answers.

        None is drawn before it can be sent at once. After a fault none is drawn any more: what is
        under way by then is stored, as far as it is answered, and the first fault is raised.
        refused: is told of a refused request, which then is no fault. Whatever breaks in from
        outside (ctrl-C) ends it at once, after storing what had come by then.
        """
        flight: Flight[PendingRequest, Reply] = Flight(
            lambda request: self._ask(flight, request), self.progress.wait
        )
        fault: Exception | None = None
        try:
            while True:
                try:
                    while fault is None and len(flight) < self.in_flight:
                        request = next(requests, None)
                        if request is None:
                            break
                        flight.launch(request)
                    if not len(flight):
                        break
                    self._end(flight.land(), refused)
                except CalledOff:
                    continue
                except Exception as error:
                    fault = fault or error
                    flight.hurry()
        except BaseException:
            flight.cancel()
            for landing in flight.landed():
                with suppress(Exception):
                    self._end(landing, refused)
            raise
        if fault is not None:
            raise fault

    def _ask(self, flight: Flight[PendingRequest, Reply], request: PendingRequest) -> Reply:
        """In a thread of its own."""
        samples = self._samples(request)
        # All is said by none, as an older service takes it.
        names = () if set(request.taps) == set(self.description.tap_names) else request.taps
        return patiently(
            lambda: self.teacher.query(
                request.request_id,
                samples,
                self.description.input_name,
                names,
                started=flight.watch,
            ),
            self.teacher.connection.patience,
            flight.pausing,
            flight.pause,
            # While others of these are answered the service is there: this one has its turn yet.
            lambda: flight.last_return,
        )

    def _samples(self, request: PendingRequest) -> Samples:
        samples = self.pool.rows(request.digests)
        if samples is None:
            raise UserError(
                f"{self.store.folder} holds a request begun for samples that are not in the "
                "public part of this data set; run with the data and split that it was begun with"
            )
        return samples

    def _end(self, landing: Landing[PendingRequest, Reply], refused: Refused | None) -> None:
        request = landing.item
        try:
            reply = landing.end()
        except RequestRefused as error:
            # Sent again it would be refused again; had it ever been charged, its samples are
            # answered free under any other id.
            self.store.abandon(request.request_id)
            if refused is None:
                raise
            refused(request, error)
            return
        count, taps = len(request.digests), request.taps
        receipt = self.verifier.receipt(reply.receipt, request.request_id, count, taps)
        answers = self.verifier.answers(reply.answers, count, taps)
        self.store.finish(request.request_id, answers, receipt.to_json())
        self.fetched = Fetched(
            requests=self.fetched.requests + 1,
            samples=self.fetched.samples + count,
            charged=self.fetched.charged + reply.charged,
            charge=self.fetched.charge + receipt.charge,
        )
        # An earlier entry's receipt may come after a later one's.
        self._epsilon_spent = max(self._epsilon_spent, receipt.epsilon_spent)
        self.progress.advance(count, self._epsilon_spent)

    def _known(self, request: PendingRequest) -> bool:
        if self.description.charges_alone(request.taps):
            return True
        # Had it been charged, it was for all taps: under another id these come again free.
        self.store.abandon(request.request_id)
        self.progress.forget(
            f"an earlier run began to ask about single taps of {len(request.digests):,} "
            "samples, which this older service does not know; this is forgotten"
        )
        return False

    def _forget(self, request: PendingRequest, error: RequestRefused) -> None:
        self.progress.forget(
            f"an earlier run began to ask about {len(request.digests):,} samples; this was "
            f"refused, and is forgotten: {error}"
        )
