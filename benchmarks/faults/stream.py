"""A client that never gives up: each request is sent until it is answered, to whoever answers."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

import grpc
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from benchmarks.faults.servers import PATIENCE
from privacy.receipts import Receipt
from protos import teacher_pb2, teacher_pb2_grpc, to_message

_AFRESH: Final = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 20)]
UNREACHED: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""Nobody listens, or the server died under the call: whether it charged is unknown."""

Connect = Callable[[str], grpc.Channel]


def plaintext(address: str) -> grpc.Channel:
    """A connection of its own, which comes back soon after a server does."""
    return grpc.insecure_channel(address, options=_AFRESH)


def secured(certificates: dict[str, bytes]) -> Connect:
    """Connections with a client's files, name → content, of those that `certs` writes."""
    credentials = grpc.ssl_channel_credentials(
        certificates["ca.pem"], certificates["key.pem"], certificates["certificate.pem"]
    )
    return lambda address: grpc.secure_channel(address, credentials, options=_AFRESH)


@dataclass
class Heard:
    """All that ever reached the clients."""

    answers: dict[int, set[bytes]] = field(default_factory=dict)
    """Sample → its answers; one each, if the promise holds."""
    receipts: dict[str, set[bytes]] = field(default_factory=dict)
    """Request id → receipts; one each."""
    requests: dict[str, list[int]] = field(default_factory=dict)
    """Request id → its samples, of those that were answered."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Status and reason of every try that brought no answer."""
    longest_wait: float = 0.0
    """Seconds from a request's first try to its answer."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(
        self, request_id: str, serials: list[int], response: teacher_pb2.QueryResponse
    ) -> None:
        """Keeps what a response said."""
        rows = answer_rows(response, len(serials))
        with self.lock:
            self.requests[request_id] = serials
            self.receipts.setdefault(request_id, set()).add(response.receipt)
            for serial, row in zip(serials, rows, strict=True):
                self.answers.setdefault(serial, set()).add(row)

    def note_refusal(self, error: grpc.RpcError) -> None:
        """Counts a try that failed."""
        with self.lock:
            self.refusals[told(error)] += 1

    def note_wait(self, seconds: float) -> None:
        """Keeps the longest one."""
        with self.lock:
            self.longest_wait = max(self.longest_wait, seconds)

    def all_receipts(self) -> list[Receipt]:
        """Every receipt that was received."""
        with self.lock:
            return [
                Receipt.from_json_bytes(receipt)
                for group in self.receipts.values()
                for receipt in group
            ]


def answer_rows(response: teacher_pb2.QueryResponse, count: int) -> list[bytes]:
    """Each sample's answer: its bytes of one tap after the other, as the menu has them."""
    return [
        b"".join(
            tensor.data[place * size : (place + 1) * size]
            for tensor in response.answers
            for size in [len(tensor.data) // count]
        )
        for place in range(count)
    ]


def told(error: grpc.RpcError) -> str:
    """A status and, where the service gave one, its reason."""
    name: str = error.code().name
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        return name
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            return f"{name} {info.reason}"
    return name


class Stream(threading.Thread):
    """Asks for new and old samples until it is stopped; every request is answered in the end.

    address: of a server that may be alive, asked anew before every try. chance: its own, as
    several streams at one generator would not repeat. passing: statuses after which the same
    request is sent again. deadline: seconds of one try.
    """

    def __init__(
        self,
        first: int,
        address: Callable[[], str],
        heard: Heard,
        chance: random.Random,
        connect: Connect = plaintext,
        passing: Collection[grpc.StatusCode] = UNREACHED,
        deadline: float = PATIENCE,
    ) -> None:
        super().__init__(daemon=True)
        self.fault: BaseException | None = None
        self._next = first
        self._address = address
        self._heard = heard
        self._chance = chance
        self._connect = connect
        self._passing = passing
        self._deadline = deadline
        self._over = threading.Event()
        self._channels: dict[str, grpc.Channel] = {}

    def finish(self) -> None:
        """Waits for the request under way; raises what went wrong."""
        self._over.set()
        self.join(PATIENCE)
        if self.fault is not None:
            raise self.fault
        assert not self.is_alive()

    def run(self) -> None:
        try:
            earlier: tuple[str, list[int]] | None = None
            while not self._over.is_set():
                # One sample was asked before, by this or the other stream; two are new.
                serials = [
                    self._next,
                    self._next + 1,
                    max(0, self._next - self._chance.randint(1, 20)),
                ]
                self._next += 2
                request = (str(uuid.uuid4()), serials)
                self._ask(*request)
                if earlier is not None and self._chance.random() < 0.2:
                    self._ask(*earlier)
                earlier = request
        except BaseException as error:
            self.fault = error
        finally:
            for channel in self._channels.values():
                channel.close()

    def _ask(self, request_id: str, serials: list[int]) -> None:
        begun = time.monotonic()
        while True:
            try:
                response = self._stub().Query(query(request_id, serials), timeout=self._deadline)
            except grpc.RpcError as error:
                self._heard.note_refusal(error)
                if error.code() not in self._passing or time.monotonic() > begun + PATIENCE:
                    raise
                time.sleep(0.002)
                continue
            self._heard.note(request_id, serials, response)
            self._heard.note_wait(time.monotonic() - begun)
            return

    def _stub(self) -> teacher_pb2_grpc.TeacherServiceStub:
        address = self._address()
        if address not in self._channels:
            self._channels[address] = self._connect(address)
        return teacher_pb2_grpc.TeacherServiceStub(self._channels[address])


def query(request_id: str, serials: list[int]) -> teacher_pb2.QueryRequest:
    """A request for the answers to these samples."""
    return teacher_pb2.QueryRequest(
        request_id=request_id, samples=[to_message("samples", samples(serials))]
    )


def samples(serials: list[int]) -> np.ndarray:
    """Rehearsal samples uint8 [n, 16] with these serial numbers, all of one case."""
    rows = np.zeros((len(serials), 16), dtype=np.uint8)
    rows[:, 0] = 1
    rows[:, 8:] = np.array(serials, dtype="<u8").view(np.uint8).reshape(-1, 8)
    return rows
