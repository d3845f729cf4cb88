"""The request log: a line a call, a file for its owner alone, and what a full disk does to it."""

import errno
import json
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ktan.errors import UserError
from teacher_server.observer import Call
from teacher_server.observing.request_log import RequestLog

PATIENCE = 60.0
QUERY = Call(
    "/ktan.teacher.v1.TeacherService/Query",
    "anna",
    ("client",),
    "OK",
    "",
    0.0123456,
    "0c9a2f3e-0000-4000-8000-000000000000",
    8,
    5,
    4000,
    17,
)


def eventually(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "requests.jsonl"


def test_a_line_says_who_asked_what_at_which_charge(path):
    kept = RequestLog(path, clock=lambda: 1_800_000_000.25)
    kept.called(QUERY)
    kept.called(replace(QUERY, code="FAILED_PRECONDITION", reason="BUDGET_EXHAUSTED", entry=0))
    kept.close()
    answered, refused = lines(path)
    assert answered == {
        "time": "2027-01-15T08:00:00.250Z",
        "client": "anna",
        "roles": ["client"],
        "method": "/ktan.teacher.v1.TeacherService/Query",
        "request_id": "0c9a2f3e-0000-4000-8000-000000000000",
        "samples": 8,
        "charged_samples": 5,
        "charge": 4000,
        "entry": 17,
        "status": "OK",
        "reason": "",
        "seconds": 0.012346,
    }
    assert (refused["status"], refused["reason"]) == ("FAILED_PRECONDITION", "BUDGET_EXHAUSTED")


def test_health_checks_are_not_written_unless_they_are_refused(path):
    check = Call("/grpc.health.v1.Health/Check", "probe", ("auditor",), "OK", "", 0.001)
    kept = RequestLog(path)
    kept.called(check)
    kept.called(replace(check, method="/grpc.health.v1.Health/Watch", code="CANCELLED"))
    kept.called(replace(check, code="UNAUTHENTICATED", reason="UNKNOWN_IDENTITY"))
    kept.close()
    assert [line["status"] for line in lines(path)] == ["UNAUTHENTICATED"]


def test_a_file_that_was_there_is_continued_and_is_its_owners_alone(path):
    path.write_text('{"earlier":1}\n')
    path.chmod(0o644)
    kept = RequestLog(path)
    kept.called(QUERY)
    kept.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(lines(path)) == 2


def test_a_line_is_there_without_an_end_of_the_service(path):
    kept = RequestLog(path)
    for _ in range(3):
        before = len(lines(path))
        kept.called(QUERY)
        eventually(lambda before=before: len(lines(path)) == before + 1)
    kept.close()


def test_after_a_rotation_lines_go_to_a_new_file(path, tmp_path):
    kept = RequestLog(path)
    kept.called(QUERY)
    eventually(lambda: len(lines(path)) == 1)
    path.rename(tmp_path / "requests.1")
    kept.reopen()
    eventually(path.exists)
    kept.called(replace(QUERY, client="bert"))
    kept.close()
    assert [line["client"] for line in lines(tmp_path / "requests.1")] == ["anna"]
    assert [line["client"] for line in lines(path)] == ["bert"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


class Disk:
    """Stands before `os.write`: takes so many bytes, then is full until there is room again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int):
        self.room = room
        self.refused = threading.Event()
        self._write = os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, file: int, content: bytes) -> int:
        if self.room <= 0:
            self.refused.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self._write(file, content[: self.room])
        self.room -= taken
        return taken


def test_a_full_disk_loses_nothing_that_fits_into_memory(path, monkeypatch, caplog):
    disk = Disk(monkeypatch, room=400)
    kept = RequestLog(path)
    for entry in range(10):
        kept.called(replace(QUERY, entry=entry))
    assert disk.refused.wait(PATIENCE)
    disk.room = 10**9
    kept.close()
    assert [line["entry"] for line in lines(path)] == list(range(10))
    assert kept.lost == 0
    assert "the request log takes no lines: No space left on device" in caplog.text


def test_a_disk_with_room_again_is_tried_once_more_at_the_end(path, monkeypatch):
    write, attempts = os.write, 0

    def full_at_first_and_closed_meanwhile(file: int, content: bytes) -> int:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            closing.start()
            eventually(lambda: kept._closing)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, content)

    monkeypatch.setattr(os, "write", full_at_first_and_closed_meanwhile)
    kept = RequestLog(path)
    closing = threading.Thread(target=kept.close)
    kept.called(QUERY)
    kept._thread.join(PATIENCE)
    closing.join(PATIENCE)
    assert len(lines(path)) == 1
    assert kept.lost == 0


def test_what_does_not_fit_is_counted_and_the_file_says_so(path, monkeypatch):
    disk = Disk(monkeypatch, room=0)
    kept = RequestLog(path, most_waiting=2)
    kept.called(QUERY)
    # It is out of the queue: in the hands of who writes.
    assert disk.refused.wait(PATIENCE)
    for _ in range(5):
        kept.called(QUERY)
    assert kept.lost == 3
    disk.room = 10**9
    eventually(lambda: len(lines(path)) == 4)
    kept.close()
    assert [line.get("lost") for line in lines(path)] == [None, None, None, 3]


def test_a_line_that_a_full_disk_tore_is_not_continued_in_another_file(path, tmp_path, monkeypatch):
    disk = Disk(monkeypatch, room=20)
    kept = RequestLog(path)
    kept.called(QUERY)
    assert disk.refused.wait(PATIENCE)
    path.rename(tmp_path / "requests.1")
    kept.reopen()
    disk.room = 10**9
    kept.called(replace(QUERY, client="bert"))
    eventually(lambda: path.exists() and len(lines(path)) == 2)
    kept.close()
    assert [line.get("client") or line["lost"] for line in lines(path)] == ["bert", 1]


def test_an_end_with_a_full_disk_is_an_end_and_says_what_is_missing(path, monkeypatch, caplog):
    Disk(monkeypatch, room=0)
    kept = RequestLog(path)
    for _ in range(3):
        kept.called(QUERY)
    kept.close()
    assert kept.lost == 3
    assert "ends with 3 lines unwritten" in caplog.text


@pytest.mark.parametrize("kind", ["folder", "pipe", "nowhere"])
def test_what_is_no_file_is_refused_before_anything_is_served(tmp_path, kind):
    path = tmp_path / "log"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = tmp_path / "missing" / "log"
    with pytest.raises(UserError, match="--request-log"):
        RequestLog(path)
