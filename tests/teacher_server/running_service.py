"""A whole service in a thread: real ledger, real mTLS, a stand-in teacher of k constant voters."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from privacy.budget import open_plan
from privacy.errors import LedgerFault
from privacy.ledger import Ledger
from privacy.noise import DiscreteGaussian
from privacy.release import TapRelease
from protos import teacher_pb2, teacher_pb2_grpc, to_message
from teacher_server.answering import Answerer
from teacher_server.certificates import issue_client, issue_server, make_authority
from teacher_server.identity import Role
from teacher_server.listening import Transport
from teacher_server.menu import ServedTap
from teacher_server.observer import Observer
from teacher_server.server import serve
from teacher_server.service import Described

TEACHERS = 5
SHAPE = (1, 4, 4)
CLASSES = ("a", "b", "c")
_NOBODY = Observer()


@dataclass
class StandInTeacher:
    """Answers by a fixed function of the sample; counts its samples; can be made to misbehave."""

    answered: int = 0
    sabotage: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda taps: taps
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answers(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        with self.lock:
            self.answered += len(samples)
        flat = samples.reshape(len(samples), -1).astype(np.float32)
        one_hot = np.eye(len(CLASSES), dtype=np.float32)[flat.sum(1).astype(int) % len(CLASSES)]
        taps = {
            "probabilities": np.stack([one_hot] * TEACHERS),
            "hint": np.stack([flat[:, :2] / 255] * TEACHERS),
        }
        return self.sabotage(taps)


MENU = (
    ServedTap(TapRelease("probabilities", "probabilities", 3, 1.0, 2**15, TEACHERS), (3,), 1.0),
    ServedTap(TapRelease("hint", "hint", 2, 1.0, 2**13, TEACHERS), (2,), None),
)
CHARGE = sum(tap.release.charge for tap in MENU)

FACE = Described(
    teacher_version="0" * 32,
    mode="ensemble",
    teachers=TEACHERS,
    dataset="stand-in",
    classes=CLASSES,
    input_dtype="uint8",
    input_shape=SHAPE,
    mean=(0.5,),
    standard_deviation=(0.5,),
    menu=MENU,
    max_samples=8,
)


@dataclass
class Service:
    """A running service and what stands behind it."""

    address: str
    certificates: Path
    ledger: Ledger
    teacher: StandInTeacher

    def channel(self, name: str | None) -> grpc.Channel:
        """A channel with the certificate of `name`; None brings no certificate at all."""
        folder = self.certificates / (name or "anna")
        key, certificate = (
            (folder / part).read_bytes() if name else None
            for part in ("key.pem", "certificate.pem")
        )
        credentials = grpc.ssl_channel_credentials(
            (self.certificates / "server" / "ca.pem").read_bytes(), key, certificate
        )
        return grpc.secure_channel(self.address, credentials)

    def stub(self, name: str | None = "anna") -> teacher_pb2_grpc.TeacherServiceStub:
        return teacher_pb2_grpc.TeacherServiceStub(self.channel(name))

    @property
    def spent(self) -> int:
        return self.ledger.budget(None).spent


def query(
    samples: np.ndarray, request_id: str | None = None, name: str = "samples"
) -> teacher_pb2.QueryRequest:
    return teacher_pb2.QueryRequest(
        request_id=request_id or str(uuid.uuid4()), samples=[to_message(name, samples)]
    )


def images(count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, *SHAPE), dtype=np.uint8)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority = make_authority(folder / "ca")
    issue_server(authority, folder / "server", ["localhost"])
    issue_client(authority, folder / "anna", Role.CLIENT, "anna")
    issue_client(authority, folder / "bert", Role.CLIENT, "bert")
    issue_client(authority, folder / "otto", Role.AUDITOR, "otto")
    stranger = make_authority(folder / "other-ca")
    issue_client(stranger, folder / "stranger", Role.CLIENT, "anna")
    return folder


@pytest.fixture
def service(tmp_path: Path, certificates: Path) -> Iterator[Service]:
    yield from running(tmp_path, certificates, FACE)


@pytest.fixture
def table_service(tmp_path: Path, certificates: Path) -> Iterator[Service]:
    """The same service for rows of four float32 values."""
    face = replace(FACE, input_dtype="float32", input_shape=(4,))
    yield from running(tmp_path, certificates, face)


def running(
    tmp_path: Path, certificates: Path, face: Described, observer: Observer = _NOBODY
) -> Iterator[Service]:
    """Serves `face` until it is resumed; `observer` is told what happens."""
    ledger = Ledger.create(
        tmp_path / "ledger",
        dataset_id="stand-in",
        plan=open_plan(4.0, 1e-5),
        witness=tmp_path / "elsewhere" / "head.json",
    )
    teacher = StandInTeacher()
    answerer = Answerer(teacher, face.teacher_version, MENU, ledger, DiscreteGaussian())
    transport = Transport("localhost:0", certificates / "server", True, 64, 5.0)
    ready = threading.Event()
    control: dict[str, object] = {}

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        control["stop"] = lambda: loop.call_soon_threadsafe(stop.set)

        def on_ready(address: str) -> None:
            control["address"] = address
            ready.set()

        # Its fault is the test's to look at.
        with suppress(LedgerFault):
            await serve(face, answerer, ledger, transport, on_ready, stop, observer=observer)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(120)
    try:
        yield Service(str(control["address"]), certificates, ledger, teacher)
    finally:
        # A service whose ledger failed has stopped by itself.
        with suppress(RuntimeError):
            control["stop"]()  # type: ignore[operator]
        thread.join(120)
        ledger.close()
