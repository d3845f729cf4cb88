"""What the teachers compute and what clients send is in no log, status, metric or stream.

A service runs with teachers whose outputs are marked numbers, which occur nowhere else, through
success, every refusal and every fault that can be provoked; whatever it says meanwhile, in any
form, is searched for the marks.
"""

import base64
import gc
import io
import itertools
import logging
import math
import re
import sqlite3
import threading
import warnings

import grpc
import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import event

from protos import teacher_pb2
from protos.teacher_pb2_grpc import AuditServiceStub
from teacher_server.observer import Observers
from teacher_server.observing.json_logs import JsonLines, TextLines
from teacher_server.observing.metrics import Metrics
from teacher_server.observing.request_log import RequestLog
from tests.teacher_server.running_service import (
    FACE,
    MENU,
    SHAPE,
    TEACHERS,
    images,
    query,
    running,
)

PATIENCE = 120.0
SAMPLE = np.array(
    [241, 17, 203, 98, 66, 159, 37, 222, 9, 181, 54, 143, 77, 12, 250, 31], np.uint8
).reshape(1, *SHAPE)
# Far beyond the bound and well within it; digits that no clock, size or charge has.
OUTPUTS = {
    "probabilities": np.array(
        [[61325.4987, 27193.8456, 11480.6557], [0.283746591, 0.192837465, 0.463728195]]
    ),
    "hint": np.array([[83127.4659, 46913.2785], [0.372819465, 0.591827364]]),
}


def _teachers(samples):
    """Tap → [k, n, *shape]: of teachers by turns the one row of marks and the other."""
    return {
        name: np.stack([np.stack([rows[teacher % 2]] * samples) for teacher in range(TEACHERS)])
        for name, rows in OUTPUTS.items()
    }


def _numbers():
    """Everything private: outputs, norms, how much was clipped, sums and means of the bounded."""
    for tap in MENU:
        rows, bound = OUTPUTS[tap.name], tap.release.bound
        norms = np.linalg.norm(rows, axis=1)
        bounded = rows * np.minimum(1.0, bound / norms)[:, None]
        votes = sum(bounded[teacher % 2] for teacher in range(TEACHERS))
        for part in (rows, norms, bound / norms, bounded, votes, votes / TEACHERS):
            yield from np.ravel(part).tolist()


def _in_decimals(value):
    """A pattern for `value` in decimals of seven digits or more, cut or rounded there."""
    size = math.floor(math.log10(value))
    # Above 10,000 nothing else that is said has a fraction: six digits will do.
    fraction = 1 if size >= 4 else 6 - size
    plain = {f"{value:.17f}"[: len(f"{value:.0f}") + 1 + fraction], f"{value:.{fraction}f}"}
    scaled = {f"{value:.17e}"[:8], f"{value:.6e}"[:8]}
    ends = [re.escape(end) for end in sorted(plain)]
    ends += [re.escape(end) + "[0-9]*e[+-]" for end in sorted(scaled)]
    return f"(?<![0-9])(?:{'|'.join(ends)})"


def _in_bytes(content):
    """The forms in which bytes could be written out."""
    yield re.escape(content)
    yield re.escape(content.hex().encode())
    yield re.escape(content.hex().upper().encode())
    yield re.escape(repr(content)[2:-1].encode())
    for shift in range(3):
        # Whole groups of three, wherever the bytes begin in what was encoded.
        inner = content[shift : shift + (len(content) - shift) // 3 * 3]
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield re.escape(encode(inner))


def _marks():
    patterns = [_in_decimals(value).encode() for value in _numbers()]
    # Rows, not single float32s: four bytes are found anywhere.
    rows = [row for rows in OUTPUTS.values() for row in rows]
    for row, kind in itertools.product(rows, ("<f4", ">f4", "<f8", ">f8")):
        patterns += _in_bytes(row.astype(kind).tobytes())
    pixels = SAMPLE.ravel()
    patterns += _in_bytes(pixels[:8].tobytes())
    patterns.append(rb"[,\s]+".join(str(pixel).encode() for pixel in pixels[:4]))
    return re.compile(b"|".join(patterns))


MARKS = _marks()


@pytest.mark.parametrize(
    "said",
    [
        f"norm {np.linalg.norm(OUTPUTS['hint'][0]):.6g}",
        str(OUTPUTS["hint"][0].astype(np.float32)),
        str(OUTPUTS["hint"][1].tolist()),
        repr(_teachers(1)),
        OUTPUTS["probabilities"][1].astype(np.float32).tobytes().hex(),
        base64.b64encode(b"x" + OUTPUTS["probabilities"][1].astype(np.float32).tobytes()).decode(),
        repr(SAMPLE),
        str(SAMPLE.ravel().tolist()),
        repr(SAMPLE.tobytes()),
    ],
)
def test_marks_are_found_where_they_are(said):
    assert MARKS.search(said.encode())


@pytest.fixture
def heard(tmp_path):
    """Everything that any logger says, in both of the service's forms."""
    streams = []
    root = logging.getLogger()
    handlers = []
    for form in (TextLines(), JsonLines()):
        streams.append(io.StringIO())
        handlers.append(logging.StreamHandler(streams[-1]))
        handlers[-1].setFormatter(form)
        root.addHandler(handlers[-1])
    levels = {root: root.level, logging.getLogger("sqlalchemy"): logging.NOTSET}
    root.setLevel(logging.DEBUG)
    # Where the program lets its statements be told, each stored answer is one: nothing asks for it.
    logging.getLogger("sqlalchemy").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield lambda: "".join(stream.getvalue() for stream in streams)
    logging.captureWarnings(False)
    for logger, level in levels.items():
        logger.setLevel(level)
    for handler in handlers:
        root.removeHandler(handler)


@pytest.fixture
def kept(tmp_path):
    """(request log's file, metrics' registry, observer of both)."""
    registry = CollectorRegistry()
    requests = RequestLog(tmp_path / "requests.jsonl")
    yield tmp_path / "requests.jsonl", registry, Observers([requests, Metrics(registry, 8)])
    requests.close()


@pytest.fixture
def marked(heard, kept, tmp_path, certificates):
    """A service of teachers whose outputs are marked."""
    for service in running(tmp_path, certificates, FACE, observer=kept[2]):
        service.teacher.sabotage = lambda taps: _teachers(len(taps["hint"][0]))
        yield service


class _Said:
    """What clients are told beside the answers themselves."""

    def __init__(self):
        self.parts = []

    def ask(self, call, request, timeout=PATIENCE):
        """The status's code; keeps every word of status, details and metadata."""
        try:
            response, ended = call.with_call(request, timeout=timeout)
        except grpc.RpcError as error:
            ended = error
        else:
            self.parts.append(getattr(response, "receipt", b""))
        self.parts.append(str(ended.details()).encode())
        for metadata in (ended.initial_metadata(), ended.trailing_metadata()):
            for key, value in metadata or ():
                self.parts += [key.encode(), value if isinstance(value, bytes) else value.encode()]
        return ended.code()


def _without_times(metrics):
    """Sums of seconds have any digits at all, and nothing private is measured in seconds."""
    lines = metrics.decode().splitlines()
    return "\n".join(line for line in lines if not re.match(r"\w+_(seconds_sum|created)\b", line))


def _raising(make):
    def sabotage(taps):
        raise make(" ".join(map(str, _numbers())) + repr(_teachers(1)) + repr(SAMPLE))

    return sabotage


def _in_a_chain(text):
    error = ValueError(text)
    error.__cause__ = RuntimeError(text)
    error.add_note(text)
    return error


def _warning(taps):
    warnings.warn("the teacher's own warning", stacklevel=1)
    return {name: np.log(-np.abs(values)) for name, values in _teachers(1).items()}


FAULTS = {
    "runtime": _raising(RuntimeError),
    "key": _raising(KeyError),
    "memory": _raising(MemoryError),
    "chained": _raising(_in_a_chain),
    "system": _raising(lambda text: OSError(5, text, text)),
    "unicode": _raising(lambda text: UnicodeDecodeError("utf-8", text.encode(), 0, 1, text)),
    "shape": lambda taps: {name: values[:, :, :1] for name, values in _teachers(1).items()},
    "missing": lambda taps: {"hint": _teachers(1)["hint"]},
    # numpy quotes what it cannot convert.
    "text": lambda taps: {n: np.char.add(v.astype(str), "!") for n, v in _teachers(1).items()},
    "nothing": lambda taps: None,
}
HARMLESS = {
    "nan": lambda taps: {name: values * np.nan for name, values in _teachers(1).items()},
    "infinite": lambda taps: {name: values * np.inf for name, values in _teachers(1).items()},
    "overflow": lambda taps: {name: values * 1e300 for name, values in _teachers(1).items()},
    "objects": lambda taps: {name: v.astype(object) for name, v in _teachers(1).items()},
    "warning": _warning,
}


def _everything(marked, said, folder):
    """Success, refusals, faults; the statuses that were seen."""
    codes = set()
    query_ = marked.stub("anna").Query

    def ask(call, request, timeout=PATIENCE):
        codes.add(said.ask(call, request, timeout))

    first = query(SAMPLE)
    ask(query_, first)
    ask(query_, first)
    ask(query_, query(SAMPLE, first.request_id, name="image"))
    ask(query_, query(images(2), first.request_id))
    ask(query_, query(SAMPLE.astype(np.float32)))
    ask(query_, query(np.repeat(SAMPLE, 9, axis=0)))
    ask(query_, query(SAMPLE.reshape(1, 16)))
    short = query(SAMPLE)
    short.samples[0].data = short.samples[0].data[:-1]
    ask(query_, short)
    tap = query(SAMPLE)
    tap.taps.append("none")
    ask(query_, tap)
    unnamed = query(SAMPLE)
    unnamed.request_id = SAMPLE.tobytes().hex()
    ask(query_, unnamed)
    ask(query_, query(SAMPLE), None)
    ask(marked.stub("otto").Query, query(SAMPLE))
    # Bytes that are no message, the sample among them.
    raw = marked.channel("anna").unary_unary("/ktan.teacher.v1.TeacherService/Query")
    ask(raw, b"\xff" + SAMPLE.tobytes())
    ask(marked.stub("bert").Describe, teacher_pb2.DescribeRequest())
    marked.ledger.set_cap("bert", 1)
    ask(marked.stub("bert").Query, query(SAMPLE + 1))
    for number, sabotage in enumerate([*HARMLESS.values(), *FAULTS.values()], 2):
        marked.teacher.sabotage = sabotage
        code = said.ask(query_, query(images(1, seed=number)))
        fault = sabotage in FAULTS.values()
        assert (code is grpc.StatusCode.INTERNAL) == fault, (number, code)
    # A teacher that fails after its caller has gone: nobody waits for the exception.
    arrived, gate, left = threading.Event(), threading.Event(), threading.Event()

    def late(taps):
        arrived.set()
        assert gate.wait(PATIENCE)
        left.set()
        FAULTS["chained"](taps)

    marked.teacher.sabotage = late
    gone = query_.future(query(images(1, seed=90)), timeout=PATIENCE)
    assert arrived.wait(PATIENCE)
    gone.cancel()
    gate.set()
    assert left.wait(PATIENCE)
    marked.teacher.sabotage = lambda taps: _teachers(1)
    audit = AuditServiceStub(marked.channel("otto"))
    entries = audit.ListEntries(teacher_pb2.ListEntriesRequest(), timeout=PATIENCE)
    said.parts += [line for response in entries for line in response.lines]

    # The ledger's disk, last: the service stops then.
    @event.listens_for(marked.ledger._engine, "connect")
    def broken(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA query_only = ON")

    marked.ledger._engine.dispose()
    ask(query_, query(images(1, seed=91)))
    return codes


def test_no_private_number_and_no_sample_is_said_anywhere(
    marked, heard, kept, tmp_path, capfd, request
):
    said = _Said()
    codes = _everything(marked, said, tmp_path)
    assert {code.name for code in codes} >= {
        "OK", "INVALID_ARGUMENT", "ALREADY_EXISTS", "PERMISSION_DENIED", "FAILED_PRECONDITION",
        "INTERNAL",
    }  # fmt: skip
    gc.collect()
    written, registry, observer = kept
    for part in observer._observers:
        if isinstance(part, RequestLog):
            part.close()
    said.parts += [
        heard().encode(),
        written.read_bytes(),
        _without_times(generate_latest(registry)).encode(),
    ]
    said.parts += [part.encode() for part in capfd.readouterr()]
    # Faults were told of: a test that heard nothing would find nothing.
    assert "RuntimeError" in heard()
    assert "the ledger failed" in heard()
    for part in said.parts:
        found = MARKS.search(part)
        assert found is None, part[max(0, found.start() - 200) : found.end() + 50]
