"""Every refusal reaches its user as one line that says what to do, over a real channel."""

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from student_client.errors import (
    AnswerRejected,
    BudgetRefused,
    RequestRefused,
    TeacherError,
    TeacherUnavailable,
)

ID = "00000000-0000-4000-8000-000000000001"
SAMPLES = np.zeros((2, 1, 28, 28), np.uint8)
CODE = grpc.StatusCode


def refused(stage, code, reason, domain="ktan.teacher.v1", retry_seconds=None, **facts):
    """What the client makes of one refusal of a query."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=facts)
    details = [info]
    if retry_seconds is not None:
        details.append(error_details_pb2.RetryInfo())
        details[-1].retry_delay.FromMilliseconds(int(1000 * retry_seconds))
    packed = [any_pb2.Any() for _ in details]
    for item, detail in zip(packed, details, strict=True):
        item.Pack(detail)
    status = status_pb2.Status(code=code.value[0], message="the text", details=packed)
    refusal = rpc_status.to_status(status)
    stage.service.before = [lambda context: context.abort_with_status(refusal)] * 4
    with stage.teacher() as teacher, pytest.raises((TeacherError, TeacherUnavailable)) as caught:
        teacher.query(ID, SAMPLES, "samples")
    assert "\n" not in str(caught.value)
    return caught.value


def test_an_exhausted_budget_shows_what_was_asked_and_left(stage):
    scope = "the cap of client 'anna'"
    error = refused(
        stage, CODE.FAILED_PRECONDITION, "BUDGET_EXHAUSTED", asked="5000", left="1200", scope=scope
    )
    assert isinstance(error, BudgetRefused)
    assert (error.asked, error.left) == (5000, 1200)
    assert str(error) == (
        f"{scope} does not cover this request: asked 5,000, left 1,200; it was not charged. "
        "Lower --queries"
    )


@pytest.mark.parametrize(
    ("code", "reason", "kind", "text"),
    [
        (CODE.UNAUTHENTICATED, "UNKNOWN_IDENTITY", TeacherError, "does not know this certificate"),
        (CODE.PERMISSION_DENIED, "WRONG_ROLE", TeacherError, "a certificate with the client role"),
        (CODE.FAILED_PRECONDITION, "LEDGER_ROLLED_BACK", TeacherError, "restored from a copy"),
        (CODE.ALREADY_EXISTS, "REQUEST_ID_REUSED", RequestRefused, "with other samples"),
        (CODE.INVALID_ARGUMENT, "INVALID_TENSOR", RequestRefused, "refused the request: the text"),
        (CODE.INTERNAL, "", TeacherError, "tell its custodian"),
    ],
)
def test_a_lasting_refusal_says_what_to_do(stage, code, reason, kind, text):
    error = refused(stage, code, reason)
    assert type(error) is kind
    assert text in str(error)


@pytest.mark.parametrize("reason", ["OVERLOADED", "DRAINING"])
def test_an_overload_may_pass_and_suggests_when(stage, reason):
    error = refused(stage, CODE.UNAVAILABLE, reason, retry_seconds=0.25)
    assert isinstance(error, TeacherUnavailable)
    assert error.retry_seconds == 0.25
    # gRPC itself has tried a few times before.
    assert len(stage.service.calls) > 1


@pytest.mark.parametrize(
    ("code", "reason", "text"),
    [
        (CODE.INTERNAL, "LEDGER_FAULT", "the text"),
        (CODE.CANCELLED, "", "broke the call off; it may be restarting"),
    ],
)
def test_what_a_service_that_stops_says_may_pass(stage, code, reason, text):
    error = refused(stage, code, reason)
    assert isinstance(error, TeacherUnavailable)
    assert text in str(error)


def test_reasons_of_another_domain_are_not_ours(stage):
    error = refused(
        stage, CODE.FAILED_PRECONDITION, "BUDGET_EXHAUSTED", domain="example.org", asked="1"
    )
    assert not isinstance(error, BudgetRefused)


def test_a_broken_answer_is_rejected(stage):
    def shorten(context, response):
        response.answers[0].shape[0] += 1

    stage.service.after = [shorten]
    with stage.teacher() as teacher, pytest.raises(AnswerRejected, match="sent a broken answer"):
        teacher.query(ID, SAMPLES, "samples")


def test_a_description_that_contradicts_itself_is_rejected(stage):
    stage.service.version = ""
    with stage.teacher() as teacher, pytest.raises(AnswerRejected, match="does not understand"):
        teacher.describe()
