"""What can go wrong between a student and its teacher, sorted by what the user can do about it.

A status of the service becomes one of these by its code and machine-readable reason; the text of a
message is shown and never acted upon. Why no connection comes about is for
`protos/diagnosis.py` to say.
"""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from ktan.errors import UserError
from protos import ERROR_DOMAIN, Reason


class TeacherError(UserError):
    """The service refused; asking the same again gives the same refusal. Nothing was charged."""


class RequestRefused(TeacherError):
    """This very request can never be served; what it asked may be asked under another id."""


class BudgetRefused(RequestRefused):
    """The budget, or the caller's cap, does not cover the request; nothing was charged.

    `asked` and `left` are integer charges (units of μ²·2⁴⁰), None where the service named none.
    """

    def __init__(self, message: str, asked: int | None, left: int | None):
        super().__init__(message)
        self.asked = asked
        self.left = left


class AnswerRejected(TeacherError):
    """An answer or a receipt is not what the service promised; it is kept out of the store."""


class TeacherUnavailable(Exception):
    """A passing fault: the same request may be sent again, under the same id, at no cost.

    `retry_seconds` is the service's own suggestion, 0 when it made none; `from_service` is False
    where nothing of the service was heard at all.
    """

    def __init__(self, message: str, retry_seconds: float = 0.0, *, from_service: bool = False):
        super().__init__(message)
        self.retry_seconds = retry_seconds
        self.from_service = from_service


def translate(error: grpc.RpcError, address: str) -> Exception:
    """The named error of a failed call: TeacherUnavailable where it may pass."""
    code, text = error.code(), error.details() or ""
    info, retry_seconds = _details(error)
    reason = info.reason if info is not None else ""
    if code == grpc.StatusCode.UNAVAILABLE:
        if reason:
            return TeacherUnavailable(f"{address}: {text}", retry_seconds, from_service=True)
        # gRPC's text ends in the system's own words, such as "Connection refused".
        cause = text.rsplit(": ", 1)[-1].rstrip("])") or "no connection"
        return TeacherUnavailable(f"no teacher service answers at {address} ({cause})")
    if code == grpc.StatusCode.CANCELLED:
        # Not by us, who would not ask what became of it: a service that stops cuts off what its
        # grace does not cover, and what was charged by then is stored.
        text = f"{address} broke the call off; it may be restarting"
        return TeacherUnavailable(text, from_service=True)
    if reason == Reason.LEDGER_FAULT:
        return TeacherUnavailable(f"{address}: {text}", retry_seconds, from_service=True)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return TeacherUnavailable(f"{address} did not answer in time; raise --deadline")
    if reason == Reason.BUDGET_EXHAUSTED and info is not None:
        return _budget(info, text)
    if reason == Reason.LEDGER_ROLLED_BACK:
        return TeacherError(
            f"the ledger of {address} was restored from a copy and takes no charge "
            f"({text}); only its custodian can open it again"
        )
    if reason == Reason.REQUEST_ID_REUSED:
        return RequestRefused(
            f"{address} knows this request id with other samples or taps; the answer store was "
            "changed by hand or shared between two clients: use another --answers folder"
        )
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return TeacherError(
            f"{address} does not know this certificate ({text}); ask its custodian for one "
            "with `teacher-server certs --client NAME` and give its folder with --certs"
        )
    if code == grpc.StatusCode.PERMISSION_DENIED:
        return TeacherError(
            f"{address} does not let this certificate do that ({text}); "
            "use a certificate with the client role"
        )
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return TeacherError(f"{address} is a gRPC server, but not a teacher service")
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        return RequestRefused(f"{address} refused the request: {text}")
    if code == grpc.StatusCode.INTERNAL:
        return TeacherError(f"{address} failed ({text}); nothing was released, tell its custodian")
    return TeacherError(f"{address}: {code.name}: {text}")


def _budget(info: error_details_pb2.ErrorInfo, text: str) -> BudgetRefused:
    asked, left = (_integer(info.metadata.get(key)) for key in ("asked", "left"))
    scope = info.metadata.get("scope", "")
    if asked is None or left is None:
        return BudgetRefused(f"the privacy budget is exhausted: {text}", asked, left)
    return BudgetRefused(
        f"{scope or 'the privacy budget'} does not cover this request: asked {asked:,}, "
        f"left {left:,}; it was not charged. Lower --queries",
        asked,
        left,
    )


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.lstrip("-").isdecimal() else None


def _details(error: grpc.RpcError) -> tuple[error_details_pb2.ErrorInfo | None, float]:
    """Our own ErrorInfo and the suggested wait in seconds, where the status carries them."""
    try:
        status = rpc_status.from_call(error)
    except (ValueError, AttributeError):
        # A status whose details contradict its code was not made by our service.
        return None, 0.0
    found, seconds = None, 0.0
    for item in status.details if status is not None else ():
        if item.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            item.Unpack(info)
            if info.domain == ERROR_DOMAIN:
                found = info
        elif item.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            item.Unpack(retry)
            seconds = retry.retry_delay.ToNanoseconds() / 1e9
    return found, seconds
