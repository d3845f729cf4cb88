"""The private teacher on another host, asked over gRPC: one call per method, no state of its own.

What was paid for is kept by the answer store (`fetching.py`), never here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import grpc
import numpy as np
import numpy.typing as npt

from privacy.promise import Promise
from protos import TensorError, from_message, teacher_pb2_grpc, to_message
from protos import teacher_pb2 as pb
from protos.diagnosis import lasting_fault
from student_client.connection import Connection, open_channel
from student_client.description import Budget, TeacherDescription, promise_of
from student_client.errors import AnswerRejected, TeacherError, TeacherUnavailable, translate

Response = TypeVar("Response")


@dataclass(frozen=True)
class Reply:
    """What one query brought."""

    answers: dict[str, npt.NDArray[np.float32]]
    """Tap name → float32 [n, ...], as released: not yet compared with any description."""
    receipt: bytes
    """Canonical JSON, as it was signed."""
    charged: int
    """Samples charged by this very call; the others had been answered before."""


class RemoteTeacher:
    """A teacher service at `address`; close it, or use it as a context manager.

    Every method raises a TeacherError where the service refuses, and TeacherUnavailable where the
    same call may succeed later. UNAVAILABLE is retried a few times, within `deadline`, by gRPC.
    """

    def __init__(self, address: str, connection: Connection):
        self.address = address
        self.connection = connection
        self._channel = open_channel(address, connection)
        self._stub = teacher_pb2_grpc.TeacherServiceStub(self._channel)

    def __enter__(self) -> RemoteTeacher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; calls under way are cancelled."""
        self._channel.close()

    def describe(self) -> TeacherDescription:
        """Free. Raises AnswerRejected when the description contradicts itself."""
        message = self._call(self._stub.Describe, pb.DescribeRequest())
        return TeacherDescription.from_message(self.address, message)

    def budget(self) -> tuple[Budget, Promise]:
        """Free: what is left now, and the promise that it belongs to."""
        message = self._call(self._stub.GetBudget, pb.GetBudgetRequest())
        try:
            return Budget.from_message(message.budget), promise_of(message.promise)
        except ValueError as error:
            raise AnswerRejected(f"{self.address}: unknown promise ({error})") from error

    def query(
        self,
        request_id: str,
        samples: npt.NDArray[np.generic],
        input_name: str,
        taps: Sequence[str] = (),
        *,
        started: Callable[[grpc.Future], object] | None = None,
    ) -> Reply:
        """Asks for these taps of `samples` [n, ...]; charges what was never answered before.

        taps: names of published ones; all of them when empty, and for an older service
        (`TeacherDescription.taps_by_name`), which charges all whichever are named. Call it with a
        request id that is on disk: after any failure, the same id, samples and taps bring the same
        answers at no further charge. started: is given the call once it is under way; cancelled,
        it raises grpc.FutureCancelledError here. Raises BudgetRefused when the budget does not
        cover the request, AnswerRejected when a tensor contradicts itself.
        """
        request = pb.QueryRequest(
            request_id=request_id, samples=[to_message(input_name, samples)], taps=taps
        )

        def ask(request: pb.QueryRequest, timeout: float) -> pb.QueryResponse:
            call = self._stub.Query.future(request, timeout=timeout)
            if started is not None:
                started(call)
            response: pb.QueryResponse = call.result()
            return response

        response = self._call(ask, request)
        answers = {}
        for tensor in response.answers:
            try:
                array = from_message(tensor)
            except TensorError as error:
                raise AnswerRejected(f"{self.address} sent a broken answer: {error}") from error
            if array.dtype != np.float32:
                raise AnswerRejected(f"{self.address} sent '{tensor.name}' as {array.dtype}")
            answers[tensor.name] = array
        return Reply(answers, response.receipt, response.charged_samples)

    def _call(self, method: Callable[..., Response], request: object) -> Response:
        try:
            return method(request, timeout=self.connection.deadline)
        except grpc.RpcError as error:
            fault = translate(error, self.address)
            if isinstance(fault, TeacherUnavailable) and not fault.from_service:
                reason = lasting_fault(self.address, self.connection.certs)
                if reason is not None:
                    fault = TeacherError(f"{self.address}: {reason}")
            raise fault from None
