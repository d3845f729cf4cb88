"""What the program's loggers write to stderr: text for people, or one JSON object a line.

In either form an exception is its type and where it was raised: its own text may hold anything, a
record's value included. The same holds for what other libraries say of one.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal, get_args

from ktan.errors import UserError

LogFormat = Literal["text", "json"]

_OURS: Final = ("teacher_server", "privacy", "ktan", "protos", "__main__")
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

log = logging.getLogger(__name__)


def set_up_logs(form: LogFormat, level: int = logging.INFO) -> None:
    """All loggers to stderr in this form; `level` for ours, warnings and worse of others.

    Also what ends a thread, or the process, without being caught. Raises UserError.
    """
    if form not in get_args(LogFormat):
        raise UserError(f"--log-format is text or json, not {form}")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("teacher_server").setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda ended: _uncaught(
        ended.exc_type, ended.exc_value, ended.exc_traceback
    )


class TextLines(logging.Formatter):
    """A line a record, and one more where there was an exception."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        told = logging.makeLogRecord(vars(record))
        told.msg, told.args = _message(record), ()
        # Kept from whoever formatted the record before: it holds the exception's text.
        told.exc_text = None
        return super().format(told)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return f"  {_kind(ei[1])} at {_place(ei[2])}"


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (RFC 3339, UTC), level, logger, message, extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, object] = {
            "time": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = _kind(record.exc_info[1])
            fields["at"] = _place(record.exc_info[2])
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in fields:
                fields[name] = _plain(value)
        return json.dumps(fields)


def _message(record: logging.LogRecord) -> str:
    """What it says, without the text of an exception that another library passes on."""
    if record.name.split(".")[0] in _OURS:
        return record.getMessage()
    told = logging.makeLogRecord(vars(record))
    if isinstance(record.args, tuple):
        told.args = tuple(
            _kind(value) if isinstance(value, BaseException) else value for value in record.args
        )
    message = told.getMessage()
    # asyncio writes the task, whose text has the exception's, below its first line.
    return message.partition("\n")[0] if record.exc_info else message


def _plain(value: object) -> object:
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, float):
        # JSON has no others.
        return value if math.isfinite(value) else str(value)
    return _kind(value) if isinstance(value, BaseException) else str(value)


def _kind(error: object) -> str:
    return type(error).__name__


def _place(trace: TracebackType | None) -> str:
    """Where it was raised: function and line of the innermost frames, outermost first."""
    frames = traceback.extract_tb(trace, limit=-5)
    return " > ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in frames)


def _uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    if issubclass(kind, SystemExit):
        return
    log.critical("ended by an unforeseen exception", exc_info=(kind, error or kind(), trace))
