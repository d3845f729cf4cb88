"""What one caller wants written, and how it waits for the group that settles it."""

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from privacy.composition import DpSgdRun
from privacy.key_history import SigningKey
from privacy.ledger import lookup
from privacy.ledger.group import Finish, Group
from privacy.ledger.keys import LedgerKeys
from privacy.ledger.request import Request
from privacy.ledger.settlement import Settlement

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


def training(run: DpSgdRun, teacher_version: str, content_digest: bytes) -> Job[Settlement]:
    """Uses a reserved run for this teacher, unless it was used for it before."""
    request_id = lookup.training_request(teacher_version)

    def decide(group: Group) -> Finish:
        earlier = group.earlier("", request_id, content_digest)
        return earlier or group.use_training_run(run, teacher_version, content_digest)

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
