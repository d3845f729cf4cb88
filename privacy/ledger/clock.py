"""The time of an entry."""

from datetime import UTC, datetime


def utc_now() -> str:
    """UTC, ISO 8601, whole seconds.

    Entries are signed and public for ever, and an answer's is made after the teachers computed it:
    a finer clock would publish how long they took.
    """
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
