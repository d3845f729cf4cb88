"""The one table from domain errors to statuses: complete, and silent about the unforeseen."""

import grpc
import pytest
from google.rpc import error_details_pb2

from privacy.errors import (
    BudgetExhausted,
    LedgerFault,
    LedgerRolledBack,
    LedgerUnreachable,
    LedgerUnreadable,
    RequestIdReused,
)
from protos import Reason, TensorError
from teacher_server.errors import RequestError, Unavailable, status_of


def details(status, kind):
    message = kind()
    found = [detail for detail in status.details if detail.Is(kind.DESCRIPTOR)]
    assert len(found) == 1
    found[0].Unpack(message)
    return message


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_code_and_travels_in_the_details(reason):
    status = status_of(RequestError(reason, "why"))
    assert status.message == "why"
    assert status.code != grpc.StatusCode.UNKNOWN.value[0]
    assert details(status, error_details_pb2.ErrorInfo).reason == reason


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (BudgetExhausted(5, 3, "the budget"), "FAILED_PRECONDITION", Reason.BUDGET_EXHAUSTED),
        (LedgerRolledBack(5, "restored"), "FAILED_PRECONDITION", Reason.LEDGER_ROLLED_BACK),
        (RequestIdReused("again"), "ALREADY_EXISTS", Reason.REQUEST_ID_REUSED),
        (LedgerUnreachable("/secret/path"), "UNAVAILABLE", Reason.LEDGER_UNREACHABLE),
        (LedgerUnreadable("/secret/path"), "UNAVAILABLE", Reason.LEDGER_UNREACHABLE),
        (LedgerFault("/secret/path: disk full"), "INTERNAL", Reason.LEDGER_FAULT),
        (TensorError("shape"), "INVALID_ARGUMENT", Reason.INVALID_TENSOR),
    ],
)
def test_domain_errors_get_their_status(error, code, reason):
    status = status_of(error)
    assert status.code == grpc.StatusCode[code].value[0]
    assert details(status, error_details_pb2.ErrorInfo).reason == reason
    assert "/secret/path" not in status.message


def test_a_refusal_for_want_of_budget_carries_what_was_asked_and_what_is_left():
    info = details(status_of(BudgetExhausted(5, 3, "the budget")), error_details_pb2.ErrorInfo)
    assert (info.metadata["asked"], info.metadata["left"]) == ("5", "3")


def test_overload_tells_when_to_come_back():
    status = status_of(Unavailable(Reason.OVERLOADED, "full", 0.5))
    assert details(status, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 500


@pytest.mark.parametrize("error", [RuntimeError("x"), ValueError("record 17"), KeyError("y")])
def test_an_unforeseen_error_has_no_public_status(error):
    assert status_of(error) is None
