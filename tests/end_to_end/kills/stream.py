"""A client that never gives up: each request is sent until it is answered, to whoever answers."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import numpy as np

from privacy.receipts import Receipt
from protos import teacher_pb2, teacher_pb2_grpc, to_message

SAMPLES = 3
PATIENCE = 90.0
"""Seconds without an answer, or without progress, that fail a test before its own timeout."""
_AFRESH = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 20)]


@dataclass
class Heard:
    """All that ever reached the clients."""

    answers: dict[int, set[bytes]] = field(default_factory=dict)
    """Sample → its answers; one each, if the promise holds."""
    receipts: dict[str, set[bytes]] = field(default_factory=dict)
    """Request id → receipts; one each."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(
        self, request_id: str, serials: list[int], response: teacher_pb2.QueryResponse
    ) -> None:
        """Keeps what a response said."""
        rows = [
            b"".join(
                tensor.data[place * size : (place + 1) * size]
                for tensor in response.answers
                for size in [len(tensor.data) // len(serials)]
            )
            for place in range(len(serials))
        ]
        with self.lock:
            self.receipts.setdefault(request_id, set()).add(response.receipt)
            for serial, row in zip(serials, rows, strict=True):
                self.answers.setdefault(serial, set()).add(row)

    def all_receipts(self) -> list[Receipt]:
        """Every receipt that was received."""
        with self.lock:
            return [
                Receipt.from_json_bytes(receipt)
                for group in self.receipts.values()
                for receipt in group
            ]


class Stream(threading.Thread):
    """Asks for new and old samples until it is stopped; every request is answered in the end.

    address: of a server that may be alive, asked anew before every try. chance: its own, as
    several streams at one generator would not repeat.
    """

    def __init__(
        self, first: int, address: Callable[[], str], heard: Heard, chance: random.Random
    ) -> None:
        super().__init__(daemon=True)
        self.fault: BaseException | None = None
        self._next = first
        self._address = address
        self._heard = heard
        self._chance = chance
        self._over = threading.Event()
        self._channel: tuple[str, grpc.Channel] | None = None

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
            if self._channel is not None:
                self._channel[1].close()

    def _ask(self, request_id: str, serials: list[int]) -> None:
        query = teacher_pb2.QueryRequest(
            request_id=request_id, samples=[to_message("samples", samples(serials))]
        )
        end = time.monotonic() + PATIENCE
        while True:
            try:
                response = self._stub().Query(query, timeout=PATIENCE)
            except grpc.RpcError as error:
                # Nobody listens, or the server died under the call: whether it charged is unknown.
                if error.code() not in _RETRIED or time.monotonic() > end:
                    raise
                time.sleep(0.002)
                continue
            self._heard.note(request_id, serials, response)
            return

    def _stub(self) -> teacher_pb2_grpc.TeacherServiceStub:
        address = self._address()
        if self._channel is None or self._channel[0] != address:
            if self._channel is not None:
                self._channel[1].close()
            self._channel = (address, grpc.insecure_channel(address, options=_AFRESH))
        return teacher_pb2_grpc.TeacherServiceStub(self._channel[1])


_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def samples(serials: list[int]) -> np.ndarray:
    """Rehearsal samples uint8 [n, 16] with these serial numbers, all of one case."""
    rows = np.zeros((len(serials), 16), dtype=np.uint8)
    rows[:, 0] = 1
    rows[:, 8:] = np.array(serials, dtype="<u8").view(np.uint8).reshape(-1, 8)
    return rows
