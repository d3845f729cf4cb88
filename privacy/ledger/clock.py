"""The time of an entry."""

from datetime import UTC, datetime


def utc_now() -> str:
    """UTC, ISO 8601, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
