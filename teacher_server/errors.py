"""Domain errors, and the one table that turns them into statuses.

What is not in the table reaches a client as INTERNAL without a word: the text of an unforeseen
exception may hold anything.
"""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from privacy.errors import (
    BudgetExhausted,
    LedgerFault,
    LedgerRolledBack,
    LedgerUnreachable,
    LedgerUnreadable,
    RequestIdReused,
)
from protos import ERROR_DOMAIN, Reason, TensorError


class RequestError(Exception):
    """A request that is refused; its message is public and safe to send."""

    def __init__(self, reason: Reason, message: str, *, retry_seconds: float | None = None):
        super().__init__(message)
        self.reason = reason
        self.retry_seconds = retry_seconds


class Unauthenticated(RequestError):
    """The caller's certificate names no identity of this service."""

    def __init__(self, message: str):
        super().__init__(Reason.UNKNOWN_IDENTITY, message)


class PermissionDenied(RequestError):
    """The caller's role may not call this method."""

    def __init__(self, message: str):
        super().__init__(Reason.WRONG_ROLE, message)


class Unavailable(RequestError):
    """Overload or shutdown: the same request may be sent again after `retry_seconds`."""

    def __init__(self, reason: Reason, message: str, retry_seconds: float):
        super().__init__(reason, message, retry_seconds=retry_seconds)


_CODES: Final[dict[Reason, grpc.StatusCode]] = {
    Reason.BUDGET_EXHAUSTED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.LEDGER_ROLLED_BACK: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.MALFORMED_MESSAGE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_TENSOR: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_TAP: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.INVALID_REQUEST_ID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.TOO_MANY_SAMPLES: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.DEADLINE_REQUIRED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.REQUEST_ID_REUSED: grpc.StatusCode.ALREADY_EXISTS,
    Reason.REVOKED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.UNKNOWN_IDENTITY: grpc.StatusCode.UNAUTHENTICATED,
    Reason.WRONG_ROLE: grpc.StatusCode.PERMISSION_DENIED,
    Reason.OVERLOADED: grpc.StatusCode.UNAVAILABLE,
    Reason.RATE_LIMITED: grpc.StatusCode.UNAVAILABLE,
    Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.LEDGER_UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.LEDGER_FAULT: grpc.StatusCode.INTERNAL,
}

_DATABASE_RETRY_SECONDS: Final = 1.0

INTERNAL: Final = status_pb2.Status(
    code=grpc.StatusCode.INTERNAL.value[0], message="internal error"
)
"""What a client learns of an unforeseen exception."""


def status_of(error: Exception) -> status_pb2.Status | None:
    """The public status of a domain error; None for an exception that is none."""
    match error:
        case RequestError():
            return _status(error.reason, str(error), retry_seconds=error.retry_seconds)
        case TensorError():
            return _status(Reason.INVALID_TENSOR, str(error), field="samples")
        case LedgerRolledBack():
            # Its own text names files of this host.
            return _status(
                Reason.LEDGER_ROLLED_BACK,
                "the ledger was restored from a copy and takes no charge; tell its custodian",
            )
        case BudgetExhausted():
            facts = {"asked": str(error.asked), "left": str(error.left), "scope": str(error.scope)}
            return _status(Reason.BUDGET_EXHAUSTED, str(error), facts)
        case RequestIdReused():
            return _status(Reason.REQUEST_ID_REUSED, str(error))
        case LedgerUnreachable() | LedgerUnreadable():
            return _status(
                Reason.LEDGER_UNREACHABLE,
                "the ledger's database does not answer and nothing was charged; retry later",
                retry_seconds=_DATABASE_RETRY_SECONDS,
            )
        case LedgerFault():
            # A charge may or may not be durable: the same request id finds out, free.
            message = "the ledger failed and nothing was released; send the same request later"
            return _status(Reason.LEDGER_FAULT, message)
        case _:
            return None


def _status(
    reason: Reason,
    message: str,
    facts: dict[str, str] | None = None,
    *,
    field: str | None = None,
    retry_seconds: float | None = None,
) -> status_pb2.Status:
    details = [
        error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=facts or {})
    ]
    if field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if retry_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(retry_seconds * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        item = any_pb2.Any()
        item.Pack(detail)
        packed.append(item)
    return status_pb2.Status(code=_CODES[reason].value[0], message=message, details=packed)
