"""Valid requests between the hostile ones: their answers, receipts and charges must be right."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from typing import Final

import grpc
import numpy as np
import numpy.typing as npt

from benchmarks.fuzz.face import QUERY, ROW, Face
from benchmarks.fuzz.kinds import BUDGET, DESCRIBE, ENTRIES
from benchmarks.fuzz.shots import PATIENCE
from benchmarks.fuzz.target import RADIUS, Target
from privacy.noise import Closeness
from privacy.receipts import Receipt, verify
from privacy.release import release
from protos import from_message, teacher_pb2
from teacher_server.options import ServeOptions
from teacher_server.rehearsal.cases import Case
from teacher_server.rehearsal.likeness import public_teacher, rehearsed_menu
from teacher_server.rehearsal.options import RehearsalOptions
from teacher_server.rehearsal.teacher import SyntheticTeacher

_DEVIATIONS: Final = 8.0
"""Of the noise, that an answer may be off: by chance less than once in 10^14 values."""
_SETTLED: Final = 12
"""Requests that the hostile client may ask again."""


class _NoNoise:
    name = "none"
    closeness = Closeness(0.0, 0.0)

    def sample(self, count: int) -> npt.NDArray[np.int64]:
        return np.zeros(count, dtype=np.int64)


@dataclass
class Prober:
    """Asks as petra, and knows what must have been charged."""

    channel: grpc.aio.Channel
    dtype: str
    asked: int = 0
    """Samples that were paid for."""
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        options = RehearsalOptions(radius=RADIUS, unlimited=True)
        public = public_teacher(options)
        self._menu = rehearsed_menu(options, public, ServeOptions())
        self._teacher = SyntheticTeacher(public, options.world)
        self._charge = sum(tap.release.charge for tap in self._menu)
        self._key = b""

    @property
    def charged(self) -> int:
        """Units that the probes cost, and nothing else may have."""
        return self.asked * self._charge

    async def settle(self, target: Target, rng: random.Random) -> Face:
        """The service's face, with requests of anna's for samples that petra paid for."""
        face = teacher_pb2.DescribeResponse.FromString(await self._call(DESCRIBE, b""))
        self._key = face.ledger_public_key
        bodies = []
        async with target.channel("anna") as channel:
            for _ in range(_SETTLED):
                body = await self.probe(rng)
                # Ids are a client's own: the same bytes are another request when anna sends them.
                await channel.unary_unary(QUERY)(body, timeout=PATIENCE)
                bodies.append(body)
        names = tuple(tap.name for tap in self._menu)
        return Face(
            self.dtype, face.input_dtype, face.max_samples_per_request, names, tuple(bodies)
        )

    async def probe(self, rng: random.Random) -> bytes:
        """Asks about one new sample, twice under one id; gives the request."""
        codes = np.zeros((1, ROW), dtype=np.uint8)
        codes[0, :4] = rng.choice((Case.ORDINARY, Case.AXIS, Case.SPREAD)), 0, rng.randrange(8), 0
        codes[0, 8:12] = np.frombuffer(self.asked.to_bytes(4, "little"), dtype=np.uint8)
        self.asked += 1
        number = (
            teacher_pb2.DATA_TYPE_UINT8 if self.dtype == "uint8" else teacher_pb2.DATA_TYPE_FLOAT32
        )
        tensor = teacher_pb2.Tensor(
            name="samples",
            dtype=number,
            shape=codes.shape,
            data=codes.astype("u1" if self.dtype == "uint8" else "<f4").tobytes(),
        )
        request = teacher_pb2.QueryRequest(request_id=str(uuid.uuid4()), samples=[tensor])
        body = request.SerializeToString()
        response = teacher_pb2.QueryResponse.FromString(await self._call(QUERY, body))
        again = teacher_pb2.QueryResponse.FromString(await self._call(QUERY, body))
        self._check(codes, response, again)
        return body

    def _check(
        self,
        codes: npt.NDArray[np.uint8],
        response: teacher_pb2.QueryResponse,
        again: teacher_pb2.QueryResponse,
    ) -> None:
        receipt = Receipt.from_json_bytes(response.receipt)
        verify(receipt, self._key)
        if (receipt.charge, response.charged_samples) != (self._charge, 1):
            self.wrong.append("a charge")
        if again.receipt != response.receipt or again.answers != response.answers:
            self.wrong.append("an answer that was asked for again")
        answers = {tensor.name: from_message(tensor) for tensor in response.answers}
        rows = self._teacher.answers(codes)
        for tap in self._menu:
            exact = release(tap.release, rows[tap.name], _NoNoise())
            far = np.abs(answers[tap.name] - exact).max() / tap.release.noise_sd
            if not far < _DEVIATIONS:
                self.wrong.append("an answer")

    async def spent(self) -> int:
        """Units that the ledger says were spent."""
        response = teacher_pb2.GetBudgetResponse.FromString(await self._call(BUDGET, b""))
        return response.budget.spent

    async def _call(self, method: str, body: bytes) -> bytes:
        response: bytes = await self.channel.unary_unary(method)(body, timeout=PATIENCE)
        return response


async def entries(target: Target) -> int:
    """Lines of the ledger's log, as otto may read it."""
    async with target.channel("otto") as channel:
        responses = channel.unary_stream(ENTRIES)(b"", timeout=PATIENCE)
        return sum(
            [
                len(teacher_pb2.ListEntriesResponse.FromString(body).lines)
                async for body in responses
            ]
        )


async def hostile_spent(target: Target) -> int:
    """Units that anna was ever charged."""
    async with target.channel("anna") as channel:
        body = await channel.unary_unary(BUDGET)(b"", timeout=PATIENCE)
        return teacher_pb2.GetBudgetResponse.FromString(body).budget.client_spent
