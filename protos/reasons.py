"""Machine-readable reasons, sent as `google.rpc.ErrorInfo.reason` in the details of a status.

A client acts on (status code, reason) and never on the text of a message.
"""

from enum import StrEnum

ERROR_DOMAIN = "ktan.teacher.v1"
"""`google.rpc.ErrorInfo.domain` of every error that this service raises itself."""


class Reason(StrEnum):
    """Why a request was refused. No refusal charges anything."""

    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    """FAILED_PRECONDITION: the global budget or the client's cap does not cover the request."""

    LEDGER_ROLLED_BACK = "LEDGER_ROLLED_BACK"
    """FAILED_PRECONDITION: the ledger was restored from a copy and takes no charge."""

    MALFORMED_MESSAGE = "MALFORMED_MESSAGE"
    """INVALID_ARGUMENT: the bytes of the request are no message of this method."""

    INVALID_TENSOR = "INVALID_TENSOR"
    """INVALID_ARGUMENT: name, dtype, shape, byte count or values do not fit."""

    INVALID_TAP = "INVALID_TAP"
    """INVALID_ARGUMENT: a tap that is not published, or that is named twice."""

    INVALID_REQUEST_ID = "INVALID_REQUEST_ID"
    """INVALID_ARGUMENT: the request id is not a UUID in its canonical form."""

    TOO_MANY_SAMPLES = "TOO_MANY_SAMPLES"
    """INVALID_ARGUMENT: more samples than one request may hold, or none."""

    DEADLINE_REQUIRED = "DEADLINE_REQUIRED"
    """INVALID_ARGUMENT: the call was made without a deadline, or with one too far away."""

    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    """ALREADY_EXISTS: this request id was used for other samples or taps."""

    UNKNOWN_IDENTITY = "UNKNOWN_IDENTITY"
    """UNAUTHENTICATED: the certificate names no role and client of this service."""

    REVOKED = "REVOKED"
    """UNAUTHENTICATED: the certificate, or every certificate of that name, was revoked."""

    WRONG_ROLE = "WRONG_ROLE"
    """PERMISSION_DENIED: the caller's role may not call this method."""

    OVERLOADED = "OVERLOADED"
    """UNAVAILABLE: too many samples are waiting; retry after the hint."""

    RATE_LIMITED = "RATE_LIMITED"
    """UNAVAILABLE: more than this client may ask in this time; retry after the hint, not before."""

    DRAINING = "DRAINING"
    """UNAVAILABLE: the server is shutting down; retry on another or later."""

    LEDGER_UNREACHABLE = "LEDGER_UNREACHABLE"
    """UNAVAILABLE: the ledger's database is away for now; retry after the hint."""

    LEDGER_FAULT = "LEDGER_FAULT"
    """INTERNAL: the ledger could not make a charge durable; nothing was released."""
