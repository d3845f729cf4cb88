"""What one caller wants written, and how it waits for the group that settles it."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from privacy.errors import RequestIdReused
from privacy.key_history import SigningKey
from privacy.ledger import lookup
from privacy.ledger.group import Finish, Group
from privacy.ledger.keys import LedgerKeys
from privacy.ledger.request import Request
from privacy.ledger.settlement import Settlement
from privacy.ledger.training_charge import TrainingCharge

_Result = TypeVar("_Result")
Decide = Callable[[Group], Callable[[], _Result]]
"""Takes its place in a group or raises a refusal; what it returns gives the result afterwards."""


class Job(Generic[_Result]):
    """One caller's part of a group.

    name: the (client, request id) that it must find unused. alone: it takes a group of its own.
    led: the jobs of the group that it leads, its own first. done: finish or error is set.
    """

    def __init__(
        self,
        decide: Decide[_Result],
        name: tuple[str, str] | None = None,
        request: Request | None = None,
        *,
        alone: bool = False,
    ) -> None:
        self.decide = decide
        self.alone = alone
        self.name = name
        self.request = request
        self.led: list[Job[Any]] = []
        self.done = False
        self.finish: Callable[[], _Result] | None = None
        self.error: BaseException | None = None
        self._turn = threading.Lock()
        self._turn.acquire()

    @property
    def answers(self) -> int:
        """How many answers it asks for."""
        return 0 if self.request is None else len(self.request.keys)

    def wait(self) -> None:
        """Returns when the job is done, or is to lead."""
        self._turn.acquire()

    def wake(self) -> None:
        """Lets `wait` return; a second time it does nothing."""
        if self._turn.locked():
            self._turn.release()


def settling(request: Request) -> Job[Settlement]:
    """Charges a request, unless it was settled before."""
    client, request_id = request.client, request.request_id

    def decide(group: Group) -> Finish:
        earlier = group.earlier(client, request_id, request.content_digest)
        return earlier or group.settle(request)

    return Job(decide, (client, request_id), request)


def training(charge: TrainingCharge, teacher_version: str) -> Job[Settlement]:
    """Uses a reserved run for this teacher, unless it was used for it before."""
    request_id = lookup.training_request(teacher_version)

    def earlier(group: Group) -> Finish | None:
        for content in charge.accepted():
            with suppress(RequestIdReused):
                return group.earlier("", request_id, content)
        raise RequestIdReused(
            f"the training of teacher {teacher_version} was charged already, for another run or "
            "for other weights than these: two releases would stand under one charge. Serve the "
            "folder that was written under the charge, or finish the unfinished training that the "
            "charge was made for; delete this one, and train anew with another reserved run"
        )

    def decide(group: Group) -> Finish:
        new = charge.run, teacher_version, charge.content()
        return earlier(group) or group.use_training_run(*new)

    return Job(decide, ("", request_id))


def capping(client: str, units: int | None) -> Job[None]:
    """Sets a client's cap."""

    def decide(group: Group) -> Callable[[], None]:
        group.set_cap(client, units)
        return lambda: None

    return Job(decide)


def handing_over(keys: LedgerKeys) -> Job[SigningKey]:
    """Has `keys` sign from the next entry on."""

    def decide(group: Group) -> Callable[[], SigningKey]:
        key = group.hand_over(keys)
        return lambda: key

    return Job(decide, alone=True)


def nothing() -> Job[None]:
    """Waits for its turn, and for the witness to have seen whatever is committed by then."""
    return Job(lambda _: lambda: None)
