"""The gRPC services: validate what came, have it answered, pack what may leave."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt

from privacy.ledger import BudgetState, Ledger
from privacy.promise import Promise
from protos import Reason, from_message, teacher_pb2, teacher_pb2_grpc, to_message
from protos.tensors import TensorError, data_type, shown
from teacher_server.answering import Answer, Question
from teacher_server.batching import Errand
from teacher_server.desk import Desk
from teacher_server.errors import RequestError
from teacher_server.guard import caller
from teacher_server.menu import MethodOffer, ServedTap
from teacher_server.observer import Observer, notes

INPUT_NAME: Final = "samples"
MAX_MAGNITUDE: Final = 1e6
"""Largest |value| of a float32 sample: beyond it lies a unit mistake, not a measurement."""
_LINES_PER_MESSAGE: Final = 256
_CANONICAL_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


@dataclass(frozen=True)
class Described:
    """The service's public face, fixed while it runs."""

    teacher_version: str
    mode: str
    teachers: int
    dataset: str
    classes: tuple[str, ...]
    input_dtype: str
    input_shape: tuple[int, ...]
    mean: tuple[float, ...]
    standard_deviation: tuple[float, ...]
    menu: tuple[ServedTap, ...]
    max_samples: int
    offers: tuple[MethodOffer, ...] = ()

    @cached_property
    def published(self) -> frozenset[str]:
        """Names of the taps."""
        return frozenset(tap.name for tap in self.menu)


class TeacherService(teacher_pb2_grpc.TeacherServiceServicer):
    """Describe, Query, GetBudget."""

    def __init__(self, described: Described, ledger: Ledger, desk: Desk, observer: Observer):
        self._described = described
        self._ledger = ledger
        self._desk = desk
        self._observer = observer if observer.listens else None

    async def Describe(
        self, request: teacher_pb2.DescribeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> teacher_pb2.DescribeResponse:
        face = self._described
        state = await self._budget()
        return teacher_pb2.DescribeResponse(
            teacher_version=face.teacher_version,
            mode=face.mode,
            teachers=face.teachers,
            dataset=face.dataset,
            classes=face.classes,
            input_name=INPUT_NAME,
            input_dtype=data_type(face.input_dtype),
            input_shape=face.input_shape,
            normalisation=teacher_pb2.Normalisation(
                mean=face.mean, standard_deviation=face.standard_deviation
            ),
            taps=[tap.message() for tap in face.menu],
            promise=_promise(state.promise, face.mode),
            budget=_budget(state),
            max_samples_per_request=face.max_samples,
            taps_by_name=True,
            ledger_public_key=self._ledger.public_key,
            ledger_id=self._ledger.ledger_id,
            ledger_keys=[
                teacher_pb2.LedgerKey(
                    public_key=key.public_key, entry=key.entry, endorsement=key.endorsement
                )
                for key in self._ledger.key_history
            ],
            methods=[offer.message() for offer in face.offers],
        )

    async def Query(
        self, request: teacher_pb2.QueryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> teacher_pb2.QueryResponse:
        noted = notes()
        request_id = noted.request_id = checked_request_id(request.request_id)
        taps = checked_taps(request.taps, self._described)
        samples = checked_samples(request.samples, self._described)
        answer = await self._ask(Question(caller().name, request_id, samples, taps), context)
        noted.samples, noted.charged_samples = len(samples), answer.charged_samples
        noted.charge = answer.receipt.charge if answer.charged_samples else 0
        noted.entry = answer.receipt.entry
        return teacher_pb2.QueryResponse(
            answers=[to_message(name, array) for name, array in answer.taps.items()],
            receipt=answer.receipt.to_json_bytes(),
            charged_samples=answer.charged_samples,
        )

    async def GetBudget(
        self, request: teacher_pb2.GetBudgetRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> teacher_pb2.GetBudgetResponse:
        state = await self._budget()
        return teacher_pb2.GetBudgetResponse(
            budget=_budget(state), promise=_promise(state.promise, self._described.mode)
        )

    async def _ask(self, question: Question, context: grpc.aio.ServicerContext[Any, Any]) -> Answer:
        left = context.time_remaining()
        errand = Errand(
            question.client,
            len(question.samples),
            time.monotonic() + (math.inf if left is None else left),
            question=question,
            future=asyncio.get_running_loop().create_future(),
        )
        self._desk.admit(errand)
        # Once its answer is written, or nobody waits for it any more. If no worker has it by then,
        # none will: nothing was done and nothing is charged.
        context.add_done_callback(lambda _: self._desk.leave(errand))
        if self._observer is not None:
            self._observer.waiting(*self._desk.waiting)
        try:
            # A client that goes away or runs out of time cancels the future and nothing else: a
            # charge under way is not stopped.
            return await errand.future
        finally:
            notes().stages.extend(errand.stages)

    async def _budget(self) -> BudgetState:
        return await asyncio.to_thread(self._ledger.budget, caller().name)


class AuditService(teacher_pb2_grpc.AuditServiceServicer):
    """Streams the public log to an auditor: what `Ledger.export` writes to a file."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger

    async def ListEntries(
        self, request: teacher_pb2.ListEntriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[teacher_pb2.ListEntriesResponse]:
        lines = await asyncio.to_thread(self._ledger.log_lines, request.first)
        while some := await asyncio.to_thread(lambda: list(islice(lines, _LINES_PER_MESSAGE))):
            yield teacher_pb2.ListEntriesResponse(lines=some)


def checked_request_id(text: str) -> str:
    """`text`, if it is a UUID in its canonical form. Raises RequestError."""
    if _CANONICAL_UUID.fullmatch(text) is None:
        raise RequestError(
            Reason.INVALID_REQUEST_ID, "request_id must be a UUID in its canonical lower-case form"
        )
    return text


def checked_taps(names: Sequence[str], face: Described) -> tuple[str, ...]:
    """`names`, if each is a published tap and there once; none means all. Raises RequestError."""
    unknown = [name for name in names if name not in face.published]
    if unknown or len(set(names)) < len(names):
        wrong = f"there is no tap '{shown(unknown[0])}'" if unknown else "a tap is there twice"
        known = ", ".join(sorted(face.published))
        raise RequestError(Reason.INVALID_TAP, f"{wrong}; name each of {known} once at most")
    return tuple(names)


def checked_samples(
    tensors: Sequence[teacher_pb2.Tensor], face: Described
) -> npt.NDArray[np.generic]:
    """The one input tensor, [n, *input_shape]. Raises TensorError or RequestError.

    Everything that can be wrong is found here, before a teacher or the ledger is touched.
    """
    if len(tensors) != 1 or tensors[0].name != INPUT_NAME:
        got = f"one named '{shown(tensors[0].name)}'" if len(tensors) == 1 else str(len(tensors))
        raise TensorError(f"send exactly one tensor named '{INPUT_NAME}', got {got}")
    tensor = tensors[0]
    count = tensor.shape[0] if tensor.shape else 0
    if not 1 <= count <= face.max_samples:
        raise RequestError(
            Reason.TOO_MANY_SAMPLES, f"send 1 to {face.max_samples} samples, got {count}"
        )
    samples = from_message(tensor)
    if samples.shape[1:] != face.input_shape:
        raise TensorError(
            f"a sample must have shape {list(face.input_shape)}, got {list(samples.shape[1:])}"
        )
    if samples.dtype != np.dtype(face.input_dtype):
        raise TensorError(f"samples must be {face.input_dtype}, got {samples.dtype.name}")
    if samples.dtype.kind == "f":
        largest = float(np.abs(samples).max())
        if not math.isfinite(largest):
            raise TensorError("samples hold NaN or infinity")
        if largest > MAX_MAGNITUDE:
            raise TensorError(f"samples hold values beyond ±{MAX_MAGNITUDE:g}")
    return samples


def _promise(promise: Promise, mode: str) -> teacher_pb2.Promise:
    return teacher_pb2.Promise(
        epsilon=promise.epsilon,
        delta=promise.delta,
        adjacency=promise.adjacency,
        unit=promise.unit,
        mode=mode,
    )


def _budget(state: BudgetState) -> teacher_pb2.Budget:
    return teacher_pb2.Budget(
        budget=state.budget,
        spent=state.spent,
        left=state.left,
        client_cap=state.cap or 0,
        client_spent=state.client_spent,
        client_left=state.client_left,
        epsilon_spent=state.epsilon_spent,
        epsilon_budget=state.promise.epsilon,
        draws_left=state.draws_left,
    )
