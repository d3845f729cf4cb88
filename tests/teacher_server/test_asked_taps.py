"""A client names which of the published taps it wants, and pays for those alone."""

import json
import uuid
from dataclasses import replace

import grpc
import numpy as np
import pytest

from privacy.receipts import Receipt
from privacy.release import TapRelease, aggregate
from protos import Reason, from_message, teacher_pb2
from teacher_server.menu import MethodOffer, ServedTap, build_menu
from teacher_server.offers import method_offers
from teacher_server.public_teacher import PublicTap, PublicTeacher
from tests.teacher_server.running_service import CHARGE, FACE, MENU, images, query, running
from tests.teacher_server.test_service import PATIENCE, refusal

PROBABILITIES, HINT = (tap.release for tap in MENU)


def ask(service, samples, *taps, request_id=None):
    request = query(samples, request_id)
    request.taps.extend(taps)
    return service.stub().Query(request, timeout=PATIENCE)


def values(response):
    return {tensor.name: from_message(tensor) for tensor in response.answers}


def test_what_is_asked_is_answered_and_charged_and_nothing_else(service):
    draws = service.ledger.budget(None).draws_left
    response = ask(service, images(3), "hint")
    assert list(values(response)) == ["hint"]
    assert Receipt.from_json(json.loads(response.receipt)).charge == 3 * HINT.charge
    assert (service.spent, response.charged_samples) == (3 * HINT.charge, 3)
    assert draws - service.ledger.budget(None).draws_left == 3 * 2


def test_the_rest_asked_later_costs_the_rest_and_changes_nothing(service):
    samples = images(4)
    hint = values(ask(service, samples[:3], "hint"))["hint"]
    response = ask(service, samples)
    # Three samples lack one tap, the fourth lacks both: each is charged for what it lacks.
    assert response.charged_samples == 4
    assert service.spent == 4 * CHARGE
    np.testing.assert_array_equal(values(response)["hint"][:3], hint)
    again = ask(service, samples, "probabilities")
    assert (service.spent, again.charged_samples) == (4 * CHARGE, 0)
    np.testing.assert_array_equal(values(again)["probabilities"], values(response)["probabilities"])
    # 4 × (3 + 2) values, whichever way they were asked for.
    full = service.ledger.plan.draws
    assert full - service.ledger.budget(None).draws_left == 4 * 5


def test_describe_says_that_taps_are_read(service):
    face = service.stub().Describe(teacher_pb2.DescribeRequest(), timeout=PATIENCE)
    assert face.taps_by_name


def test_none_means_all_and_their_order_means_nothing(service):
    samples, request_id = images(2), str(uuid.uuid4())
    first = ask(service, samples, request_id=request_id)
    for taps in (("probabilities", "hint"), ("hint", "probabilities")):
        again = ask(service, samples, *taps, request_id=request_id)
        assert again == replace_charged(first, 0)
    assert service.spent == 2 * CHARGE


def replace_charged(response, charged):
    copy = teacher_pb2.QueryResponse()
    copy.CopyFrom(response)
    copy.charged_samples = charged
    return copy


@pytest.mark.parametrize("other", [(), ("probabilities",), ("probabilities", "hint")])
def test_a_request_id_is_bound_to_its_taps(service, other):
    request_id = str(uuid.uuid4())
    ask(service, images(2), "hint", request_id=request_id)
    request = query(images(2), request_id)
    request.taps.extend(other)
    code, reason, _, _ = refusal(service.stub().Query, request)
    assert (code, reason) == (grpc.StatusCode.ALREADY_EXISTS, Reason.REQUEST_ID_REUSED)
    assert service.spent == 2 * HINT.charge


@pytest.mark.parametrize("taps", [("hints",), ("hint", "hint"), ("hint", ""), ("",)])
def test_a_tap_that_is_unknown_or_twice_is_refused_and_free(service, taps):
    request = query(images(2))
    request.taps.extend(taps)
    code, reason, _, message = refusal(service.stub().Query, request)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.INVALID_TAP)
    assert "hint, probabilities" in message
    assert (service.spent, service.teacher.answered) == (0, 0)


def test_a_broken_teacher_counts_as_zeros_and_is_charged(service):
    """One of five says NaN of a derived tap: the sum is that of four, the price is the price."""
    tap = TapRelease("attention", "attention", 16, 1.0, 2**12, 5)
    said = np.random.default_rng(0).random((5, 3, 4, 4))
    said[0] = np.nan
    rest = said.reshape(5, 3, 16).copy()
    rest[0] = 0.0
    norms = np.maximum(np.linalg.norm(rest, axis=2, keepdims=True), 1.0)
    expected = np.trunc(rest / norms * 2**12).sum(axis=0)
    assert np.abs(aggregate(tap, said) - expected).max() <= 5  # a grid step a teacher

    def sabotage(taps):
        taps["hint"][0] = np.nan
        return taps

    service.teacher.sabotage = sabotage
    assert np.isfinite(values(ask(service, images(3), "hint"))["hint"]).all()
    assert service.spent == 3 * HINT.charge


def test_two_derived_taps_never_share_a_stored_answer():
    """Settings differ by name and kind, where everything else is the same."""
    common = {"dimension": 16, "bound": 1.0, "radius": 2**12, "teachers": 5}
    kinds = ("hint", "tsl", "attention", "signs", "products")
    releases = [TapRelease(name=kind, kind=kind, **common) for kind in kinds]
    releases += [TapRelease(name="attention.a", kind="attention", **common)]
    assert len({release.settings_bytes() for release in releases}) == len(releases)
    assert {release.charge for release in releases} == {4 * 2**24}


def menu_of(mode, *taps):
    public = PublicTeacher(
        "", mode, 1 if mode == "dp-sgd" else 5, "d", ("a", "b"), (1,), "uint8", (0.0,), (1.0,), taps
    )
    return build_menu(public, 2**40, 100, {})


def test_offers_name_what_each_method_pays_for():
    menu = menu_of(
        "ensemble",
        PublicTap("probabilities", "probabilities", (2,), 1.0, 1.0),
        PublicTap("attention", "attention", (4, 4), 1.0),
        PublicTap("hint", "hint", (8,), 2.0),
    )
    charge = {tap.name: tap.release.charge for tap in menu}
    offers = {offer.name: offer for offer in method_offers(menu)}
    assert offers["at"] == MethodOffer("at", ("attention",), charge["attention"])
    assert offers["soft-logits"].taps == ("probabilities",)
    both = charge["probabilities"] + charge["hint"]
    assert offers["ktan"] == MethodOffer("ktan", ("probabilities", "hint"), both)
    assert "local" not in offers  # asks no teacher
    assert "ktan" not in {offer.name for offer in method_offers(menu[:2])}


def test_free_whole_maps_serve_attention_too():
    shape = (4, 6, 6)
    maps = (PublicTap("hint", "hint", shape, 0.0), PublicTap("hint.b", "hint", shape, 0.0))
    offers = {offer.name: offer for offer in method_offers(menu_of("dp-sgd", *maps))}
    assert offers["at"] == MethodOffer("at", ("hint", "hint.b"), 0)
    noisy = menu_of("single", *(replace(tap, bound=1.0) for tap in maps))
    assert "at" not in {offer.name for offer in method_offers(noisy)}


def test_describe_publishes_the_offers(certificates, tmp_path):
    face = replace(FACE, offers=(MethodOffer("soft-logits", ("probabilities",), 7),))
    for service in running(tmp_path, certificates, face):
        described = service.stub().Describe(teacher_pb2.DescribeRequest(), timeout=PATIENCE)
    assert [(m.name, list(m.taps), m.charge) for m in described.methods] == [
        ("soft-logits", ["probabilities"], 7)
    ]


@pytest.mark.parametrize(
    ("kind", "number"), [("tsl", 4), ("attention", 5), ("signs", 6), ("products", 7)]
)
def test_describe_knows_each_derived_kind(kind, number):
    tap = ServedTap(TapRelease(kind, kind, 8, 1.0, 4, 5), (2, 4), None)
    assert (tap.message().kind, list(tap.message().shape)) == (number, [2, 4])
