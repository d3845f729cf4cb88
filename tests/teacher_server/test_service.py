"""The service over a real mTLS channel: right answers, and every refusal with its status.

A refusal has the right code, a machine-readable reason, a message that says what to do, and
charges nothing.
"""

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from privacy.errors import RequestIdReused
from privacy.noise import DiscreteGaussian
from privacy.receipts import Receipt, verify
from protos import ERROR_DOMAIN, Reason, from_message, teacher_pb2, teacher_pb2_grpc, to_message
from protos.limits import LONGEST_SECONDS
from teacher_server.answering import Answerer
from teacher_server.errors import RequestError
from teacher_server.service import AuditService, TeacherService, checked_request_id
from tests.teacher_server.running_service import CHARGE, CLASSES, FACE, MENU, images, query

Code = grpc.StatusCode
PATIENCE = 120.0


def refusal(call, request, timeout=PATIENCE):
    """(code, reason, facts, message) of a call that must be refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=timeout)
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    if status is not None and status.details:
        assert status.details[0].Unpack(info)
        assert info.domain == ERROR_DOMAIN
    return caught.value.code(), info.reason, dict(info.metadata), caught.value.details()


def answers(response):
    return {tensor.name: from_message(tensor) for tensor in response.answers}


def test_describe_says_what_is_asked_answered_and_paid(service):
    face = service.stub().Describe(teacher_pb2.DescribeRequest(), timeout=PATIENCE)
    assert face.classes == list(CLASSES)
    assert (face.input_dtype, list(face.input_shape)) == (teacher_pb2.DATA_TYPE_UINT8, [1, 4, 4])
    assert {tap.name: tap.charge for tap in face.taps} == {
        "probabilities": 2 * 2**30,
        "hint": 4 * 2**26,
    }
    # sigma * B / (R * k)
    assert face.taps[0].noise_standard_deviation == pytest.approx(2**20 / (2**15 * 5))
    assert (face.promise.epsilon, face.promise.delta) == (4.0, 1e-5)
    assert face.promise.adjacency == "replace-one"
    assert face.ledger_public_key == service.ledger.public_key


@pytest.mark.parametrize("service_class", [TeacherService, AuditService])
def test_every_call_of_the_protocol_is_answered_by_us(service_class):
    """The generated base classes refuse each call; none of theirs is left."""
    (generated,) = service_class.__bases__
    calls = {name for name in vars(generated) if not name.startswith("_")}
    assert calls
    assert calls <= set(vars(service_class))


def test_an_answer_is_the_mean_plus_noise_of_the_published_size(service):
    """Mean and spread of many answers, against the published noise; alpha below 1e-6."""
    stub, draws = service.stub(), []
    samples = np.zeros((8, 1, 4, 4), dtype=np.uint8)
    count = 25
    for batch in range(count):
        samples[:, 0, 3, :] = 3 * np.arange(32).reshape(8, 4)
        samples[:, 0, 2, 0] = 3 * (batch % 80)
        draws.append(answers(stub.Query(query(samples), timeout=PATIENCE))["probabilities"])
    noise = np.concatenate(draws) - np.array([1.0, 0.0, 0.0])
    sd = MENU[0].release.noise_sd
    n = noise.size
    assert abs(noise.mean()) < 5.2 * sd / np.sqrt(n)
    assert abs(noise.std() / sd - 1) < 5.2 / np.sqrt(2 * n)


def test_an_answer_comes_with_a_signed_receipt_of_its_charge(service):
    response = service.stub().Query(query(images(3)), timeout=PATIENCE)
    receipt = Receipt.from_json(json.loads(response.receipt))
    verify(receipt, service.ledger.public_key)
    assert (receipt.charge, receipt.client) == (3 * CHARGE, "anna")
    assert response.charged_samples == 3
    assert service.spent == 3 * CHARGE


def test_a_retry_returns_the_same_bytes_and_the_same_receipt_free(service):
    request = query(images(4))
    first = service.stub().Query(request, timeout=PATIENCE)
    again = service.stub().Query(request, timeout=PATIENCE)
    assert again.receipt == first.receipt
    assert [t.data for t in again.answers] == [t.data for t in first.answers]
    assert service.spent == 4 * CHARGE
    assert service.teacher.answered == 4


def test_the_same_sample_is_never_drawn_twice_whoever_asks_and_however_often(service):
    samples = images(3)
    first = answers(service.stub("anna").Query(query(samples), timeout=PATIENCE))
    doubled = np.concatenate([samples, samples[::-1]])
    other = service.stub("bert").Query(query(doubled), timeout=PATIENCE)
    assert other.charged_samples == 0
    for name, values in answers(other).items():
        np.testing.assert_array_equal(values[:3], first[name])
        np.testing.assert_array_equal(values[3:], first[name][::-1])
    assert service.spent == 3 * CHARGE


def test_equal_samples_within_a_request_are_charged_once(service):
    response = service.stub().Query(query(np.repeat(images(1), 5, axis=0)), timeout=PATIENCE)
    values = answers(response)["probabilities"]
    assert (values == values[0]).all()
    assert response.charged_samples == 1
    assert service.spent == CHARGE


def test_the_same_samples_from_many_callers_at_once_are_charged_once(service):
    stubs = [service.stub(name) for name in ("anna", "bert") * 4]
    samples = images(6)
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda stub: stub.Query(query(samples), timeout=PATIENCE), stubs))
    assert len({tuple(t.data for t in response.answers) for response in responses}) == 1
    assert service.spent == 6 * CHARGE


@pytest.mark.parametrize(
    ("samples", "match"),
    [
        (np.zeros((2, 1, 4, 5), np.uint8), "shape"),
        (np.zeros((2, 4, 4), np.uint8), "shape"),
        (np.zeros((2, 1, 4, 4), np.float32), "must be uint8"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(service, samples, match):
    code, reason, _, message = refusal(service.stub().Query, query(samples))
    assert (code, reason) == (Code.INVALID_ARGUMENT, Reason.INVALID_TENSOR)
    assert match in message
    assert service.spent == 0


@pytest.mark.parametrize(
    ("value", "match"),
    [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (-3e9, "beyond ±1e+06")],
)
def test_values_that_are_no_measurement_are_refused(table_service, value, match):
    rows = np.zeros((3, 4), np.float32)
    rows[1, 2] = value
    code, reason, _, message = refusal(table_service.stub().Query, query(rows))
    assert (code, reason) == (Code.INVALID_ARGUMENT, Reason.INVALID_TENSOR)
    assert match in message
    assert table_service.spent == 0


def test_a_request_id_has_one_meaning_under_another_menu_too(service):
    """Answers stored under a request id are never served as another teacher's."""
    request_id, samples = str(uuid.uuid4()), images(2)
    service.stub().Query(query(samples, request_id), timeout=PATIENCE)
    other = Answerer(service.teacher, "1" * 32, MENU, service.ledger, DiscreteGaussian())
    with pytest.raises(RequestIdReused):
        other.answer("anna", request_id, samples)


def test_bytes_that_contradict_the_shape_are_refused(service):
    request = query(images(2))
    request.samples[0].data = request.samples[0].data[:-1]
    code, reason, _, _ = refusal(service.stub().Query, request)
    assert (code, reason) == (Code.INVALID_ARGUMENT, Reason.INVALID_TENSOR)
    assert service.spent == 0


@pytest.mark.parametrize("count", [0, FACE.max_samples + 1])
def test_too_many_samples_or_none_are_refused(service, count):
    code, reason, _, message = refusal(service.stub().Query, query(images(count)))
    assert (code, reason) == (Code.INVALID_ARGUMENT, Reason.TOO_MANY_SAMPLES)
    assert "1 to 8" in message
    assert service.spent == 0


def test_a_tensor_under_another_name_or_two_tensors_are_refused(service):
    two = query(images(1))
    two.samples.append(to_message("more", images(1)))
    for request in (query(images(1), name="image"), two):
        code, reason, _, _ = refusal(service.stub().Query, request)
        assert (code, reason) == (Code.INVALID_ARGUMENT, Reason.INVALID_TENSOR)
    assert service.spent == 0


@pytest.mark.parametrize("text", ["", "1", "not-a-uuid", str(uuid.UUID(int=255)).upper()])
def test_a_request_id_that_is_no_canonical_uuid_is_refused(service, text):
    request = query(images(1))
    request.request_id = text
    code, reason, _, _ = refusal(service.stub().Query, request)
    assert (code, reason) == (Code.INVALID_ARGUMENT, Reason.INVALID_REQUEST_ID)


@pytest.mark.parametrize(
    "text",
    [
        "{00000000-0000-0000-0000-0000000000ff}",
        "urn:uuid:00000000-0000-0000-0000-0000000000ff",
        "000000000000000000000000000000ff",
        "00000000-0000-0000-0000-0000000000ff\n",
        "00000000-0000-0000-0000-000000000_ff",
        "00000000-0000-0000-0000-00000000000\N{ARABIC-INDIC DIGIT TWO}",
        "0000000-00000-0000-0000-0000000000ff",
    ],
)
def test_every_other_way_to_write_a_uuid_is_refused(text):
    with pytest.raises(RequestError, match="canonical"):
        checked_request_id(text)
    for canonical in (uuid.UUID(int=255), uuid.uuid4()):
        assert checked_request_id(str(canonical)) == str(canonical)


def test_every_method_of_the_protocol_is_served_by_our_own_code():
    """What protoc generates raises NotImplementedError for a method that nobody overrides."""
    served = {"TeacherService": TeacherService, "AuditService": AuditService}
    described = teacher_pb2.DESCRIPTOR.services_by_name
    assert set(described) == set(served)
    for name, service in served.items():
        own = {method for method in vars(service) if not method.startswith("_")}
        assert own == set(described[name].methods_by_name)


@pytest.mark.parametrize("seconds", [None, 700.0])
def test_a_call_without_a_deadline_or_with_a_far_one_is_refused(service, seconds):
    code, reason, _, message = refusal(service.stub().Query, query(images(1)), timeout=seconds)
    assert "600 seconds at most" in message
    assert (code, reason) == (Code.INVALID_ARGUMENT, Reason.DEADLINE_REQUIRED)
    assert service.spent == 0


def test_the_longest_deadline_is_taken_though_grpc_rounds_it_up(service):
    response = service.stub().Query(query(images(1)), timeout=LONGEST_SECONDS)
    assert response.charged_samples == 1


def test_a_request_id_used_for_other_samples_is_refused(service):
    request_id = str(uuid.uuid4())
    service.stub().Query(query(images(1, seed=1), request_id), timeout=PATIENCE)
    code, reason, _, _ = refusal(service.stub().Query, query(images(1, seed=2), request_id))
    assert (code, reason) == (Code.ALREADY_EXISTS, Reason.REQUEST_ID_REUSED)
    assert service.spent == CHARGE


def test_request_ids_of_two_clients_do_not_collide(service):
    request_id = str(uuid.uuid4())
    service.stub("anna").Query(query(images(1, seed=1), request_id), timeout=PATIENCE)
    service.stub("bert").Query(query(images(1, seed=2), request_id), timeout=PATIENCE)
    assert service.spent == 2 * CHARGE


def test_an_exhausted_budget_says_what_was_asked_and_what_is_left(service):
    stub, limit = service.stub(), service.ledger.plan.answer_units // CHARGE
    for batch in range(limit // 8):
        stub.Query(query(images(8, seed=batch)), timeout=PATIENCE)
    before = service.spent
    code, reason, facts, message = refusal(stub.Query, query(images(8, seed=10**6)))
    assert (code, reason) == (Code.FAILED_PRECONDITION, Reason.BUDGET_EXHAUSTED)
    assert int(facts["asked"]) == 8 * CHARGE
    assert int(facts["left"]) == service.ledger.plan.answer_units - before
    assert str(facts["left"]) in message
    assert service.spent == before
    # What was answered stays free.
    again = stub.Query(query(images(8, seed=0)), timeout=PATIENCE)
    assert again.charged_samples == 0


def test_a_clients_cap_stops_that_client_alone(service):
    service.ledger.set_cap("anna", 2 * CHARGE)
    service.stub("anna").Query(query(images(2, seed=1)), timeout=PATIENCE)
    code, reason, _, message = refusal(service.stub("anna").Query, query(images(1, seed=2)))
    assert (code, reason) == (Code.FAILED_PRECONDITION, Reason.BUDGET_EXHAUSTED)
    assert "anna" in message
    service.stub("bert").Query(query(images(1, seed=2)), timeout=PATIENCE)
    assert service.spent == 3 * CHARGE


def test_an_auditor_may_not_query_and_a_client_may_not_read_the_log(service):
    code, reason, _, message = refusal(service.stub("otto").Query, query(images(1)))
    assert (code, reason) == (Code.PERMISSION_DENIED, Reason.WRONG_ROLE)
    assert "client" in message
    audit = teacher_pb2_grpc.AuditServiceStub(service.channel("anna"))
    with pytest.raises(grpc.RpcError) as caught:
        list(audit.ListEntries(teacher_pb2.ListEntriesRequest(), timeout=PATIENCE))
    assert caught.value.code() is Code.PERMISSION_DENIED
    assert service.spent == 0


@pytest.mark.parametrize("name", [None, "stranger"])
def test_without_a_certificate_of_our_authority_nothing_is_served(service, name):
    with pytest.raises(grpc.RpcError) as caught:
        service.stub(name).Query(query(images(1)), timeout=PATIENCE)
    assert caught.value.code() is Code.UNAVAILABLE
    assert service.spent == 0


def test_an_auditor_reads_the_log_that_the_ledger_exports(service, tmp_path):
    service.stub().Query(query(images(2)), timeout=PATIENCE)
    audit = teacher_pb2_grpc.AuditServiceStub(service.channel("otto"))
    responses = audit.ListEntries(teacher_pb2.ListEntriesRequest(), timeout=PATIENCE)
    lines = [line for response in responses for line in response.lines]
    service.ledger.export(tmp_path / "log.jsonl")
    assert b"\n".join(lines) == (tmp_path / "log.jsonl").read_bytes().rstrip(b"\n")


def test_the_budget_is_told_to_whoever_asks(service):
    service.stub("anna").Query(query(images(2)), timeout=PATIENCE)
    for name, own in (("anna", 2 * CHARGE), ("bert", 0), ("otto", 0)):
        budget = (
            service.stub(name).GetBudget(teacher_pb2.GetBudgetRequest(), timeout=PATIENCE).budget
        )
        assert (budget.spent, budget.client_spent) == (2 * CHARGE, own)
        assert budget.left == service.ledger.plan.answer_units - 2 * CHARGE
        assert 0 < budget.epsilon_spent < budget.epsilon_budget == 4.0


def test_a_teacher_that_answers_nonsense_changes_no_status_and_no_charge(service):
    service.teacher.sabotage = lambda taps: {n: t * np.nan for n, t in taps.items()}
    response = service.stub().Query(query(images(4)), timeout=PATIENCE)
    assert all(np.isfinite(values).all() for values in answers(response).values())
    assert service.spent == 4 * CHARGE


def test_an_unforeseen_fault_says_nothing_and_charges_nothing(service, caplog):
    def leak(_):
        raise RuntimeError("record 17 is 0.123")

    service.teacher.sabotage = leak
    code, reason, facts, message = refusal(service.stub().Query, query(images(1)))
    assert (code, reason, facts, message) == (Code.INTERNAL, "", {}, "internal error")
    assert "0.123" not in caplog.text
    assert service.spent == 0


def test_a_client_that_gives_up_is_charged_once_and_finds_its_answer_later(service):
    arrived, gate = threading.Event(), threading.Event()

    def slow(taps):
        arrived.set()
        assert gate.wait(PATIENCE)
        return taps

    stub = service.stub()
    # The handshake is over: the deadline that follows is the teacher's to miss.
    stub.Describe(teacher_pb2.DescribeRequest(), timeout=PATIENCE)
    service.teacher.sabotage = slow
    request, deadline = query(images(2)), 0.5
    # A slow host may not deliver a request in so short a time: it is given more until one is.
    while not arrived.is_set():
        assert deadline < PATIENCE
        assert refusal(stub.Query, request, timeout=deadline)[0] is Code.DEADLINE_EXCEEDED
        deadline *= 2
    gate.set()
    again = stub.Query(request, timeout=PATIENCE)
    assert len(again.answers) == 2
    assert service.spent == 2 * CHARGE


def test_health_says_serving_and_reflection_lists_our_services(service):
    channel = service.channel("otto")
    health = health_pb2_grpc.HealthStub(channel)
    name = "ktan.teacher.v1.TeacherService"
    status = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE).status
    assert status == health_pb2.HealthCheckResponse.SERVING
    watch = health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE)
    assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    listing = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=PATIENCE
    )
    names = {service.name for service in next(iter(listing)).list_services_response.service}
    assert {name, "ktan.teacher.v1.AuditService"} <= names
