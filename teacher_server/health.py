"""Whether the service lives, and whether it can answer: two questions, told apart.

    service                              SERVING while
    "", "liveness"                       the process lives and its event loop turns
    ktan.teacher.v1.TeacherService, …    it can answer: every check holds, and it is not draining

Checks are looked at every few seconds, off the event loop; asking costs nothing. A liveness that
failed with the ledger would have a process killed that a restart does not mend.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import teacher_pb2

if TYPE_CHECKING:
    # Who asks for health from outside is there in a moment, without a database's library.
    from privacy.ledger import Ledger

log = logging.getLogger(__name__)

Check = Callable[[], object]
"""Returns anything but False where it holds; raises, or returns False, where it does not."""

LIVENESS: Final = ("", "liveness")
READINESS: Final = tuple(
    teacher_pb2.DESCRIPTOR.services_by_name[name].full_name
    for name in ("TeacherService", "AuditService")
)
STARTING: Final = "starting"
DRAINING: Final = "draining"
CHECK_SECONDS: Final = 3.0
"""Between two looks at every check."""
_PATIENCE: Final = 5.0
"""Seconds after which a check that has not ended counts as failed."""
_BEAT_SECONDS: Final = 1.0
_LONGEST_PAUSE: Final = 15.0
"""Seconds without a turn of the event loop after which the process counts as stuck."""

SERVING: Final[int] = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final[int] = health_pb2.HealthCheckResponse.NOT_SERVING


def ledger_usable(ledger: Ledger) -> Check:
    """Holds while the ledger can be read and takes charges, as far as a read can tell.

    A ledger that is not believed, or whose budget is spent, still sends what is stored.
    """

    def check() -> None:
        ledger.require_usable()
        ledger.budget(None)

    return check


class Health:
    """Liveness and readiness of one service; `check` and `run` in its event loop.

    checks: what must hold for it to answer; their names are public, and are all that is ever said.
    `ready`, `why` and `alive` may be asked from any thread.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        interval: float = CHECK_SECONDS,
        patience: float = _PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._checks = dict(checks)
        self._interval = interval
        self._patience = patience
        self._clock = clock
        self._failed: tuple[str, ...] = (STARTING,)
        self._draining = False
        self._beat = clock()
        self._changed = asyncio.Event()
        self._hanging: dict[str, asyncio.Future[bool]] = {}

    def add_check(self, name: str, check: Check) -> None:
        """One more that must hold; before `run`."""
        self._checks[name] = check

    @property
    def ready(self) -> bool:
        """Whether it can answer."""
        return not self._failed

    @property
    def why(self) -> str:
        """Names of what does not hold; empty when ready."""
        return ", ".join(self._failed)

    @property
    def alive(self) -> bool:
        """Whether the event loop has turned lately."""
        return self._clock() - self._beat < _LONGEST_PAUSE

    def status(self, service: str) -> int | None:
        """What the wire says of `service`; None for one that is not ours."""
        if service in LIVENESS:
            return SERVING
        if service not in READINESS:
            return None
        return SERVING if self.ready else NOT_SERVING

    async def run(self) -> None:
        """Looks at every check, again and again, until it is cancelled."""
        beating = asyncio.create_task(self._beats())
        try:
            while True:
                await self.check()
                await asyncio.sleep(self._interval)
        finally:
            beating.cancel()

    async def check(self) -> None:
        """Looks at every check once."""
        failed = [
            name for name, check in self._checks.items() if not await self._holds(name, check)
        ]
        self._say(failed)

    def drain(self) -> None:
        """Not ready from now on, whatever the checks say; still alive."""
        self._draining = True
        self._say(())

    async def changes(self, service: str) -> AsyncIterator[int | None]:
        """The status of `service` now and after each change, until it drains."""
        told: list[int | None] = []
        while True:
            changed, status = self._changed, self.status(service)
            if told != [status]:
                told = [status]
                yield status
            if self._draining:
                return
            await changed.wait()

    async def _beats(self) -> None:
        while True:
            self._beat = self._clock()
            await asyncio.sleep(_BEAT_SECONDS)

    async def _holds(self, name: str, check: Check) -> bool:
        # One that hangs is waited for, and never begun a second time beside.
        pending = self._hanging.pop(name, None) or _in_thread(name, check)
        try:
            return await asyncio.wait_for(asyncio.shield(pending), self._patience)
        except TimeoutError:
            self._hanging[name] = pending
            return False

    def _say(self, failed: Sequence[str]) -> None:
        failed = (DRAINING,) if self._draining else tuple(failed)
        if failed == self._failed:
            return
        self._failed = failed
        if failed:
            log.log(logging.INFO if self._draining else logging.ERROR, "not ready: %s", self.why)
        else:
            log.info("ready")
        self._changed.set()
        self._changed = asyncio.Event()


def _in_thread(name: str, check: Check) -> asyncio.Future[bool]:
    """Whether the check holds, from a thread that keeps no process from its end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bool] = loop.create_future()

    def tell(holds: bool) -> None:
        if not future.done():
            future.set_result(holds)

    def work() -> None:
        try:
            holds = check() is not False
        except Exception as error:
            # Its text may hold anything.
            log.debug("%s: %s", name, type(error).__name__)
            holds = False
        # The loop may have ended meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, holds)

    threading.Thread(target=work, name=f"health-{name}", daemon=True).start()
    return future


def health_of(ledger: Ledger) -> Health:
    """Of a service under `ledger`; who runs it adds what else must hold."""
    return Health({"ledger": ledger_usable(ledger)})


class HealthService(health_pb2_grpc.HealthServicer):
    """grpc.health.v1 of a `Health`; a watch ends where draining begins, and holds nothing up."""

    def __init__(self, health: Health):
        self._health = health

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        status = self._health.status(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        async for status in self._health.changes(request.service):
            yield health_pb2.HealthCheckResponse(status=unknown if status is None else status)
