"""The service under audit: a process of its own, asked over the wire like any other.

Nothing of the service is imported: the command that starts it
may name another installation.
"""

import json
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt

from privacy.accounting import Kind
from privacy.audit.mechanism.cases import AuditedTap, Samples
from privacy.errors import PrivacyError
from privacy.receipts import Receipt, verify
from protos import from_message, teacher_pb2, teacher_pb2_grpc, to_message
from protos.channel import ChannelError, open_channel

_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 60.0
_CALL_SECONDS: Final = 120.0
_IN_FLIGHT: Final = 4
"""Requests under way at once: enough that the service never waits for the auditor."""
_KINDS: Final[dict[int, Kind]] = {
    teacher_pb2.TAP_KIND_LOGITS: "logits",
    teacher_pb2.TAP_KIND_PROBABILITIES: "probabilities",
    teacher_pb2.TAP_KIND_HINT: "hint",
    teacher_pb2.TAP_KIND_TSL: "tsl",
    teacher_pb2.TAP_KIND_ATTENTION: "attention",
    teacher_pb2.TAP_KIND_SIGNS: "signs",
    teacher_pb2.TAP_KIND_PRODUCTS: "products",
}

Answers = dict[str, npt.NDArray[np.float32]]


class AuditFailed(PrivacyError):
    """The audit could not be made: the service did not start, refused, or broke its contract."""


@dataclass(frozen=True)
class Asked:
    """What a run of requests brought.

    answers: tap → float32 [n, m]. charge: units that the receipts name, all together.
    charged_samples: samples that the service says it charged.
    """

    answers: Answers
    charge: int
    charged_samples: int


class Service:
    """A running service, and its published numbers. Made by `running`."""

    def __init__(self, channel: grpc.Channel, world: int, end: "_End"):
        self._stub: Any = teacher_pb2_grpc.TeacherServiceStub(channel)
        self._end = end
        self.world = world
        try:
            face = self._stub.Describe(teacher_pb2.DescribeRequest(), timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            raise self._failed(error) from None
        self.public_key: bytes = face.ledger_public_key
        self.ledger_id: str = face.ledger_id
        self.batch: int = face.max_samples_per_request
        self.taps = tuple(_tap(tap, face.teachers) for tap in face.taps)

    @property
    def charge(self) -> int:
        """Units that one sample costs by what the service publishes."""
        return sum(tap.charge for tap in self.taps)

    def ask(self, asked: Samples, taps: Sequence[str] = ()) -> Asked:
        """Answers to samples [n, 16]; of these taps, or of all. Raises as `ask_each` does."""
        parts = [got for _, got in self.ask_each(asked, taps)]
        return Asked(
            {
                name: np.concatenate([got.answers[name] for got in parts])
                for name in parts[0].answers
            },
            sum(got.charge for got in parts),
            sum(got.charged_samples for got in parts),
        )

    def ask_each(self, asked: Samples, taps: Sequence[str] = ()) -> Iterator[tuple[Samples, Asked]]:
        """Full requests, several of them under way at once; each with its answers, in order.

        Raises AuditFailed when the service refuses, or when an answer or a receipt does not fit.
        """
        under_way: deque[tuple[Samples, str, Any]] = deque()
        for start in range(0, len(asked), self.batch):
            if len(under_way) == _IN_FLIGHT:
                yield self._finished(*under_way.popleft(), taps)
            part, request_id = asked[start : start + self.batch], str(uuid.uuid4())
            request = teacher_pb2.QueryRequest(
                request_id=request_id, samples=[to_message("samples", part)], taps=taps
            )
            call = self._stub.Query.future(request, timeout=_CALL_SECONDS)
            under_way.append((part, request_id, call))
        while under_way:
            yield self._finished(*under_way.popleft(), taps)

    def _finished(
        self, part: Samples, request_id: str, call: Any, taps: Sequence[str]
    ) -> tuple[Samples, Asked]:
        try:
            response = call.result()
        except grpc.RpcError as error:
            raise self._failed(error) from None
        try:
            answers = {tensor.name: from_message(tensor) for tensor in response.answers}
            rows = {
                tap.name: answers.pop(tap.name).reshape(len(part), tap.dimension)
                for tap in self.taps
                if not taps or tap.name in taps
            }
            if answers:
                raise ValueError(f"{', '.join(answers)} was not asked for")
            charge = self._checked(response.receipt, request_id).charge
        except (KeyError, ValueError) as error:
            raise AuditFailed(
                f"the service of world {self.world} answers otherwise than it describes: {error!r}"
            ) from None
        return part, Asked(rows, charge, response.charged_samples)

    def _checked(self, data: bytes, request_id: str) -> Receipt:
        receipt = Receipt.from_json_bytes(data)
        verify(receipt, self.public_key)
        if receipt.request_id != request_id or receipt.ledger_id != self.ledger_id:
            raise AuditFailed(
                f"a receipt of world {self.world} is of request {receipt.request_id} in ledger "
                f"{receipt.ledger_id}, not of {request_id} in {self.ledger_id}"
            )
        return receipt

    def _failed(self, error: grpc.RpcError) -> AuditFailed:
        code = error.code().name if hasattr(error, "code") else "failed"
        details = error.details() if hasattr(error, "details") else str(error)
        return AuditFailed(
            f"the service of world {self.world}: {code}: {details}{self._end.last_words()}"
        )


@contextmanager
def running(
    command: str | None, options: list[str], world: int, certs: Path | None = None
) -> Iterator[Service]:
    """The service of one world with a new throw-away ledger, until the block ends.

    command: what starts it, as one would type it; the rehearsal of this installation when None.
    options: of the synthetic teachers. certs: a client's certificate folder, for a command that
    serves with TLS; plaintext on loopback when None. Raises AuditFailed.
    """
    arguments = shlex.split(command) if command else [sys.executable, "-m", _REHEARSAL]
    arguments += [*options, "--world", str(world), "--unlimited", "--json"]
    arguments += ["--listen", "localhost:0" if certs else "127.0.0.1:0"]
    arguments += [] if certs else ["--plaintext"]
    with tempfile.TemporaryDirectory(prefix="privacy-audit-") as folder:
        place = Path(folder)
        with (place / "stderr").open("wb") as stderr:
            try:
                process = subprocess.Popen(
                    [*arguments, "--ledger", str(place / "ledger")],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                )
            except OSError as error:
                raise AuditFailed(f"{arguments[0]} cannot be started: {error.strerror}") from None
        end = _End(process, place / "stderr")
        try:
            with open_channel(_address(process, end), certs, plaintext=certs is None) as channel:
                yield Service(channel, world, end)
        except ChannelError as error:
            raise AuditFailed(str(error)) from None
        finally:
            end.stop()


_REHEARSAL: Final = "teacher_server.rehearsal"


@dataclass(frozen=True)
class _End:
    """How a process ends, and what it said then."""

    process: subprocess.Popen[bytes]
    stderr: Path

    def stop(self) -> None:
        """SIGTERM, then SIGKILL where that is not heard."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def last_words(self) -> str:
        """The end of what the process wrote to stderr, as the end of a sentence."""
        lines = self.stderr.read_text(encoding="utf-8", errors="replace").split("\n")
        said = "\n".join(line for line in lines[-12:] if line.strip())
        return f"; it said:\n{said}" if said else ""


def _address(process: subprocess.Popen[bytes], end: _End) -> str:
    """Where the service listens, by the JSON line that it prints once it does."""
    assert process.stdout is not None
    late = threading.Timer(_START_SECONDS, process.kill)
    late.start()
    began = time.monotonic()
    try:
        line = process.stdout.readline()
    finally:
        late.cancel()
    try:
        return str(json.loads(line)["listening"])
    except (ValueError, KeyError, TypeError):
        waited = time.monotonic() - began
        raise AuditFailed(
            f"the service said nowhere that it listens ({waited:.0f} s){end.last_words()}"
        ) from None


def _tap(tap: teacher_pb2.TapDescription, teachers: int) -> AuditedTap:
    return AuditedTap(
        name=tap.name,
        kind=_KINDS[tap.kind],
        dimension=int(np.prod(tap.shape)),
        bound=tap.bound,
        teachers=teachers,
        charge=tap.charge,
        noise_sd=tap.noise_standard_deviation,
    )
