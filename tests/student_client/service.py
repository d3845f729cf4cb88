"""A teacher service in this process that keeps a small ledger in memory and can be told to fail.

It speaks the wire contract over a real channel and shares no code with `teacher_server`.
"""

import hashlib
import threading
from concurrent import futures
from dataclasses import dataclass, field, replace

import grpc
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from privacy.key_history import endorse
from privacy.promise import Adjacency, Promise
from privacy.receipts import Receipt, sign
from protos import from_message, teacher_pb2, teacher_pb2_grpc, to_message
from student_client.connection import Connection
from student_client.remote import RemoteTeacher
from tests.ports import reserved_port

PROMISE = Promise(4.0, 1e-5, Adjacency.REPLACE_ONE, "record", None)
CLASSES = tuple(f"pattern-{number}" for number in range(10))
PROBABILITIES, HINT = 10, 8


def status(code, reason, message="told to fail", **facts):
    """A status as `teacher_server` sends it, for `context.abort_with_status`."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain="ktan.teacher.v1", metadata=facts)
    packed = any_pb2.Any()
    packed.Pack(info)
    return rpc_status.to_status(
        status_pb2.Status(code=code.value[0], message=message, details=[packed])
    )


@dataclass
class Service(teacher_pb2_grpc.TeacherServiceServicer):
    """Answers a sample by numbers that depend on its bytes and on how often it was *drawn*."""

    shape: tuple[int, ...] = (1, 28, 28)
    charges: tuple[int, int] = (900, 100)
    budget: int = 10_000_000
    version: str = "f" * 32
    mode: str = "ensemble"
    max_samples: int = 256
    classes: tuple[str, ...] = CLASSES
    hints: bool = True
    dtype: int = teacher_pb2.DATA_TYPE_UINT8
    ledger_id: str = "a" * 32
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    keys: list = field(default_factory=list)
    """(public key, first entry, endorsement) of every key, once `rotate` was called."""
    spent: int = 0
    entry: int = 0
    calls: list = field(default_factory=list)
    """(request id, samples) of every Query that arrived."""
    asked: list = field(default_factory=list)
    """The taps that each of them named."""
    offers: tuple = ()
    """(name, taps, charge) of the methods that it says it can serve."""
    before: list = field(default_factory=list)
    """Called with the context, one per Query, before anything is charged."""
    after: list = field(default_factory=list)
    """Called with the context and the response, one per Query, once it was charged."""
    taps_by_name: bool = True
    """False: as an older service, which knows nothing of named taps and answers them all."""
    answer: object = None
    """samples [n, ...] → {tap: float32 [n, ...]}; noise-like numbers by default."""

    def __post_init__(self):
        self.stored, self.settled, self.lock = {}, {}, threading.Lock()
        self.paid = set()
        self.draws = 0

    def Describe(self, request, context):
        kinds = (teacher_pb2.TAP_KIND_PROBABILITIES, teacher_pb2.TAP_KIND_HINT)
        sizes = (len(self.classes), HINT)
        taps = [
            teacher_pb2.TapDescription(
                name=name,
                kind=kind,
                shape=[size],
                bound=1.0,
                charge=charge,
                noise_standard_deviation=0.125 if charge else 0.0,
                temperature=1.0 if kind == kinds[0] else 0.0,
            )
            for name, kind, size, charge in zip(
                ("probabilities", "hint"), kinds, sizes, self.charges, strict=True
            )
        ]
        return teacher_pb2.DescribeResponse(
            teacher_version=self.version, mode=self.mode, teachers=200, dataset="fake",
            classes=self.classes, input_name="samples", input_dtype=self.dtype,
            input_shape=self.shape, taps=taps[: 2 if self.hints else 1],
            promise=self._promise(), budget=self._budget(),
            normalisation=teacher_pb2.Normalisation(mean=[127.5], standard_deviation=[73.6]),
            max_samples_per_request=self.max_samples, ledger_id=self.ledger_id,
            taps_by_name=self.taps_by_name,
            ledger_public_key=self.key.public_key().public_bytes_raw(),
            ledger_keys=[
                teacher_pb2.LedgerKey(public_key=key, entry=entry, endorsement=endorsement)
                for key, entry, endorsement in self.keys
            ],
            methods=[
                teacher_pb2.MethodOffer(name=name, taps=taps, charge=charge)
                for name, taps, charge in self.offers
            ],
        )  # fmt: skip

    def rotate(self, endorser=None):
        """A new signing key from the next entry on, endorsed by the old one or by `endorser`."""
        if not self.keys:
            self.keys = [(self.key.public_key().public_bytes_raw(), 0, b"")]
        self.entry += 1
        new = Ed25519PrivateKey.generate()
        public = new.public_key().public_bytes_raw()
        endorsed = endorse(endorser or self.key, self.ledger_id, self.entry, public)
        self.keys.append((public, self.entry, endorsed.endorsement))
        self.key = new

    def GetBudget(self, request, context):
        return teacher_pb2.GetBudgetResponse(budget=self._budget(), promise=self._promise())

    def Query(self, request, context):
        samples = from_message(request.samples[0])
        self.calls.append((request.request_id, len(samples)))
        self.asked.append(tuple(request.taps))
        if self.before:
            self.before.pop(0)(context)
        with self.lock:
            taps = tuple(request.taps) if self.taps_by_name else ()
            response = self._settle(request.request_id, samples, taps, context)
        if self.after:
            self.after.pop(0)(context, response)
        return response

    def _settle(self, request_id, samples, taps, context):
        keys = [hashlib.sha256(sample.tobytes()).digest() for sample in samples]
        if request_id in self.settled:
            content, response = self.settled[request_id]
            if content != (keys, taps):
                context.abort_with_status(
                    status(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
                )
            return response
        prices = dict(zip(("probabilities", "hint"), self.charges, strict=True))
        names = taps or tuple(prices)[: 2 if self.hints else 1]
        pairs = {(key, tap) for key in keys for tap in names} - self.paid
        new = {key for key, _ in pairs}
        charge = sum(prices[tap] for _, tap in pairs)
        if charge > self.budget - self.spent:
            context.abort_with_status(
                status(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "BUDGET_EXHAUSTED",
                    asked=str(charge),
                    left=str(self.budget - self.spent),
                    scope="the ledger's answering budget",
                )
            )
        for key in dict.fromkeys(keys):
            if key not in self.stored:
                sample = samples[keys.index(key)][None]
                self.stored[key] = self.answer(sample) if self.answer else self._noise(key)
        self.paid |= pairs
        self.spent += charge
        self.entry += 1
        answers = [
            to_message(tap, np.concatenate([self.stored[key][tap] for key in keys]))
            for tap in names
        ]
        response = teacher_pb2.QueryResponse(
            answers=answers,
            receipt=self.receipt(request_id, charge, len(new)).to_json_bytes(),
            charged_samples=len(new) if charge else 0,
        )
        self.settled[request_id] = (keys, taps), response
        return response

    def receipt(self, request_id, charge, new, /, **changes):
        """A signed receipt of the current state; `changes` are made before it is signed."""
        receipt = Receipt(
            ledger_id=self.ledger_id,
            entry=self.entry,
            entry_hash=hashlib.sha256(f"{self.entry}".encode()).digest(),
            client="student",
            request_id=request_id,
            charge=charge,
            draws=new * (len(self.classes) + HINT),
            spent=self.spent,
            budget=self.budget,
            epsilon_spent=4.0 * self.spent / max(self.budget, 1),
            promise=PROMISE,
        )
        return sign(replace(receipt, **changes), self.key)

    def _noise(self, key):
        # Another draw of the same sample would differ: a paid answer must be the stored one.
        self.draws += 1
        numbers = np.random.default_rng([*key, self.draws])
        draw = numbers.standard_normal((1, PROBABILITIES + HINT)).astype(np.float32)
        return {"probabilities": draw[:, :PROBABILITIES], "hint": draw[:, PROBABILITIES:]}

    def _promise(self):
        return teacher_pb2.Promise(
            epsilon=PROMISE.epsilon, delta=PROMISE.delta, adjacency=PROMISE.adjacency,
            unit=PROMISE.unit, mode=self.mode,
        )  # fmt: skip

    def _budget(self):
        left = self.budget - self.spent
        return teacher_pb2.Budget(
            budget=self.budget, spent=self.spent, left=left, client_spent=self.spent,
            client_left=left, epsilon_spent=4.0 * self.spent / max(self.budget, 1),
            epsilon_budget=4.0, draws_left=10**6,
        )  # fmt: skip


class Stage:
    """Starts and stops the service at one address."""

    def __init__(self):
        self.service = Service()
        self._reserved = reserved_port()
        self.port: int = self._reserved.getsockname()[1]
        self._server = None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        self._server = grpc.server(
            futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)]
        )
        teacher_pb2_grpc.add_TeacherServiceServicer_to_server(self.service, self._server)
        assert self._server.add_insecure_port(self.address) == self.port
        self._server.start()

    def stop(self):
        self._server.stop(None).wait()

    def close(self):
        self._reserved.close()

    def teacher(self, **options):
        return RemoteTeacher(self.address, Connection(**{"plaintext": True, **options}))
