"""One process of clients: `python -m benchmarks.soaking.client PLAN` (JSON, see `Plan`).

No torch here: processes are killed and started all the time. Each client has a certificate, a
connection and a journal of its own. It goes on where its journal ends: what was neither answered
nor given up is sent again under its id. SIGTERM: it asks for nothing new, waits for what is under
way and leaves.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import re
import signal
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from benchmarks.faults.stream import answer_rows, told
from benchmarks.soaking.journal import MAYBE, Journal, unfinished
from protos import teacher_pb2, teacher_pb2_grpc, to_message
from protos.limits import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES

DEADLINE: Final = 15.0
"""Seconds of one call."""
PATIENCE: Final = 10.0
"""Seconds after which a request that was refused is not sent again."""
LEAVING: Final = 30.0
"""Seconds that a client which leaves waits for what is under way."""
_AGAIN: Final = 0.01
"""Of the answered requests, how many are sent once more."""
_UNHINTED: Final = 0.5
"""Seconds to wait where the service could say nothing."""
_TEXT: Final = 100
_NUMBERS: Final = re.compile(r"[0-9]+")
"""Ports and times, without which gRPC's texts are few."""
_OPTIONS: Final = [
    ("grpc.use_local_subchannel_pool", 1),
    # Every refusal is seen here, and obeyed here.
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
]


@dataclass(frozen=True)
class Member:
    """One client. sizes: samples a request → its weight. rate: requests a second; 0: `flights`
    requests are under way at any time, which is a closed loop."""

    number: int
    sizes: dict[int, float]
    rate: float = 0.0
    flights: int = 0


@dataclass(frozen=True)
class Plan:
    """What a process of clients does.

    calls: that a client leaves open on its connection; more wait their turn at the client. unruly:
    it cancels, hurries and breaks connections.
    """

    address: str
    certificates: str
    journals: str
    shape: tuple[int, ...]
    calls: int
    members: tuple[Member, ...]
    unruly: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        value = json.loads(text)
        members = [
            Member(**item | {"sizes": {int(k): v for k, v in item["sizes"].items()}})
            for item in value["members"]
        ]
        return cls(**value | {"members": tuple(members), "shape": tuple(value["shape"])})


@cache
def _picture(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def samples(client: int, first: int, count: int, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """uint8 [count, *shape] that no other client and no other number makes, the same each time."""
    rows = np.repeat(_picture(shape).reshape(1, -1), count, axis=0)
    rows[:, :4] = np.frombuffer(np.uint32(client).tobytes(), np.uint8)
    rows[:, 4:12] = np.arange(first, first + count, dtype="<u8").view(np.uint8).reshape(-1, 8)
    return rows.reshape(count, *shape)


def retry_hint(error: grpc.RpcError) -> float | None:
    """Seconds that both RetryInfo and gRPC's own pushback tell; None where either is missing.

    Pushback of −1 stands for a wait that gRPC itself is not to sit out.
    """
    pushback = {str(k): v for k, v in error.trailing_metadata() or ()}.get("grpc-retry-pushback-ms")
    status = rpc_status.from_call(error)
    info = error_details_pb2.RetryInfo()
    if status is None or pushback is None or not any(d.Unpack(info) for d in status.details):
        return None
    seconds = info.retry_delay.ToNanoseconds() / 1e9
    return seconds if int(pushback) < 0 else max(seconds, int(pushback) / 1000)


class Client:
    """Asks as its plan says, and keeps its journal."""

    def __init__(self, plan: Plan, member: Member) -> None:
        path = Path(plan.journals) / f"client-{member.number}"
        self._pending, self._next = unfinished(path)
        self._plan, self._member = plan, member
        self._journal = Journal(path)
        self._stop = asyncio.Event()
        self._room = asyncio.Semaphore(plan.calls)
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: BaseException | None = None
        own = Path(plan.certificates) / f"client-{member.number}"
        self._credentials = grpc.ssl_channel_credentials(
            *((own / name).read_bytes() for name in ("ca.pem", "key.pem", "certificate.pem"))
        )
        self._connect()

    def stop(self) -> None:
        """Nothing new from now on."""
        self._stop.set()

    async def run(self) -> None:
        """Until it is stopped and nothing is under way."""
        for request in self._pending:
            self._spawn(self._pursue(*request))
        if self._plan.unruly:
            self._spawn(self._break_connections())
        if self._member.rate:
            await self._open_loop()
        else:
            await asyncio.gather(*(self._closed_loop() for _ in range(self._member.flights)))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LEAVING)
        await self._channel.close()
        if self._fault is not None:
            raise self._fault

    def _connect(self) -> None:
        self._channel = grpc.aio.secure_channel(self._plan.address, self._credentials, _OPTIONS)
        self._stub = teacher_pb2_grpc.TeacherServiceStub(self._channel)

    async def _open_loop(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            # Who was stopped for long does not make up for all of it.
            due = max(due + random.expovariate(self._member.rate), time.monotonic() - 1)
            if not await self._pause(due - time.monotonic()):
                self._spawn(self._pursue(*self._new(due)))

    async def _closed_loop(self) -> None:
        while not self._stop.is_set():
            await self._pursue(*self._new(time.monotonic()))

    def _new(self, due: float) -> tuple[str, int, int]:
        (count,) = random.choices(*zip(*self._member.sizes.items(), strict=True))
        request = str(uuid.uuid4()), self._next, count
        self._next += count
        self._journal.ask(due, *request)
        return request

    async def _pause(self, seconds: float) -> bool:
        """Whether it was told to stop meanwhile."""
        try:
            await asyncio.wait_for(self._stop.wait(), max(seconds, 0))
        except TimeoutError:
            return False
        return True

    def _spawn(self, what: Any) -> None:
        task = asyncio.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            # A mistake in here, never a status: the process ends so, and the soak says it.
            self._fault = fault
            self.stop()

    async def _pursue(self, request_id: str, first: int, count: int) -> None:
        """Sends it until it is answered, its time is up or its client loses interest."""
        patience = time.monotonic() + PATIENCE
        answered = False
        while True:
            async with self._room:
                if self._stop.is_set():
                    return None if answered else self._journal.end(request_id, "left")
                if answered or time.monotonic() < patience:
                    wait = await self._try(request_id, first, count)
                else:
                    wait = math.inf
            if wait is None:
                if answered or random.random() >= _AGAIN:
                    return
                answered, wait = True, 0.0
            elif answered:
                return
            elif wait < 0:
                return self._journal.end(request_id, "no interest any more")
            if time.monotonic() + wait > patience:
                return None if answered else self._journal.end(request_id, "no patience any more")
            if await self._pause(wait):
                return None if answered else self._journal.end(request_id, "left")

    async def _try(self, request_id: str, first: int, count: int) -> float | None:
        """One call: None once answered, else the seconds to wait; below 0 for never."""
        tensor = to_message("samples", samples(self._member.number, first, count, self._plan.shape))
        request = teacher_pb2.QueryRequest(request_id=request_id, samples=[tensor])
        deadline, cancelled = DEADLINE, None
        if self._plan.unruly:
            lot = random.random()
            if lot < 0.1:
                deadline = random.uniform(0.02, 0.5)
            elif lot < 0.2:
                cancelled = random.uniform(0.0, 0.5)
        self._journal.send(request_id)
        call = self._stub.Query(request, timeout=deadline)
        if cancelled is not None:
            asyncio.get_running_loop().call_later(cancelled, call.cancel)
        try:
            response = await call
        except asyncio.CancelledError:
            self._journal.cut(request_id)
            return 0.0 if random.random() < 0.5 else -1.0
        except grpc.RpcError as error:
            name, hint = told(error), retry_hint(error)
            text = "" if " " in name else _NUMBERS.sub("#", error.details() or "")[:_TEXT]
            self._journal.no(request_id, name, hint, text)
            if name == "DEADLINE_EXCEEDED" and deadline < DEADLINE:
                return 0.0 if random.random() < 0.5 else -1.0
            if name in MAYBE or name.startswith("UNAVAILABLE"):
                return _UNHINTED if hint is None else hint
            return -1.0
        digest = hashlib.sha256(b"".join(answer_rows(response, count))).hexdigest()
        self._journal.got(request_id, digest, response.charged_samples, response.receipt)
        return None

    async def _break_connections(self) -> None:
        while not await self._pause(random.expovariate(1 / 8)):
            old = self._channel
            self._connect()
            await old.close()


async def _run(plan: Plan) -> None:
    clients = [Client(plan, member) for member in plan.members]

    def stop() -> None:
        for client in clients:
            client.stop()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    print("ready", flush=True)
    await asyncio.gather(*(client.run() for client in clients))


if __name__ == "__main__":
    asyncio.run(_run(Plan.from_json(sys.argv[1])))
