"""Logs: one object a line, with what a record has; and never an exception's own text."""

import asyncio
import json
import logging
import subprocess
import sys

import pytest

from ktan.errors import UserError
from teacher_server.observing.json_logs import JsonLines, TextLines, set_up_logs

SECRET = "record-17-is-a-five"


@pytest.fixture(params=["json", "text"])
def written(request):
    """Lines that a logger has written, in each form."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Kept()
    handler.setFormatter(JsonLines() if request.param == "json" else TextLines())
    root = logging.getLogger()
    root.addHandler(handler)
    yield lines
    root.removeHandler(handler)


def raising() -> None:
    raise ValueError(SECRET)


def formatted(**fields: object) -> dict:
    return json.loads(JsonLines().format(logging.makeLogRecord(fields)))


def test_an_object_has_time_level_logger_message_and_extra_fields():
    said = formatted(
        name="teacher_server.server",
        levelname="INFO",
        msg="listening on %s",
        args=("port 1",),
        created=1_800_000_000.25,
        samples=8,
        peer=None,
    )
    assert said == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "INFO",
        "logger": "teacher_server.server",
        "message": "listening on port 1",
        "samples": 8,
        "peer": None,
    }


def test_a_message_of_several_lines_is_one_line():
    line = JsonLines().format(logging.makeLogRecord({"name": "teacher_server", "msg": "a\nb"}))
    assert "\n" not in line
    assert json.loads(line)["message"] == "a\nb"


def test_an_extra_field_takes_the_place_of_no_other():
    said = formatted(
        name="teacher_server", levelname="INFO", msg="said", level="root", time="never"
    )
    assert (said["message"], said["level"], said["time"][:2]) == ("said", "INFO", "20")


def test_an_exception_is_its_type_and_its_place(written):
    try:
        raising()
    except ValueError:
        logging.getLogger("teacher_server.guard").exception("it failed")
    (line,) = written
    assert "it failed" in line
    assert "ValueError" in line
    assert "raising" in line
    assert SECRET not in line


def test_what_another_library_says_of_an_exception_is_its_type(written):
    logging.getLogger("grpc").warning("connection broken by %s", ValueError(SECRET))
    assert "connection broken by ValueError" in written[0]
    assert SECRET not in written[0]


def test_a_task_that_failed_unseen_is_told_without_its_words(written):
    async def fails() -> None:
        raising()

    async def forgets() -> None:
        task = asyncio.create_task(fails())
        while not task.done():
            await asyncio.sleep(0)

    asyncio.run(forgets())
    (line,) = [line for line in written if "never retrieved" in line]
    assert "ValueError" in line
    assert SECRET not in line


CHILD = f"""
import logging, threading
from teacher_server.observing.json_logs import set_up_logs
set_up_logs("FORM")
logging.getLogger("teacher_server.server").info("ready")
logging.getLogger("sqlalchemy").info("too much")
logging.getLogger("grpc._cython").error("one of grpc's")
def fails():
    raise ValueError("{SECRET}")
thread = threading.Thread(target=fails)
thread.start()
thread.join()
fails()
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_every_logger_and_what_nobody_caught_goes_there(form):
    ended = subprocess.run(
        [sys.executable, "-c", CHILD.replace("FORM", form)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert SECRET not in ended.stderr
    assert "too much" not in ended.stderr
    assert ended.stderr.count("ended by an unforeseen exception") == 2
    if form == "json":
        said = [json.loads(line) for line in ended.stderr.splitlines()]
        assert [one["logger"] for one in said[:2]] == ["teacher_server.server", "grpc._cython"]
        assert {one["exception"] for one in said[2:]} == {"ValueError"}


def test_a_form_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="--log-format"):
        set_up_logs("xml")  # type: ignore[arg-type]
