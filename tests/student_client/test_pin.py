"""A store knows its ledger by the key of its first use, and follows endorsed successors only."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ktan.errors import UserError
from privacy.key_history import PIN
from student_client.description import TeacherDescription
from student_client.errors import AnswerRejected
from student_client.pin import Pin, open_store
from student_client.verification import Verifier

ID = "00000000-0000-4000-8000-00000000000{}"


def described(service):
    return TeacherDescription.from_message("127.0.0.1:50051", service.Describe(None, None))


@pytest.fixture
def service(new_service):
    one = new_service()
    one.spent, one.entry = 1000, 1
    return one


def receipt(service, number):
    return service.receipt(ID.format(number), 1000, 1).to_json_bytes()


def test_the_first_use_pins_the_key_that_signs_then(service, folder):
    service.rotate()
    open_store(folder, described(service))
    pin = Pin.read(folder)
    assert pin.public_key == service.key.public_key().public_bytes_raw()
    assert [key.public_key for key in pin.keys] == [pin.public_key]


def test_an_endorsed_key_is_followed_and_the_pin_knows_it(service, folder):
    store = open_store(folder, described(service))
    first = Pin.read(folder).public_key
    old = receipt(service, 1)
    service.rotate()
    service.rotate()
    description = described(service)
    store = open_store(folder, description)
    pin = Pin.read(folder)
    assert pin.public_key == first
    assert [key.public_key for key in pin.keys] == [key for key, _, _ in service.keys]
    verifier = Verifier.of(description, store)
    # Each receipt by the key of its entry: a request of before the rotation may come late.
    assert verifier.receipt(old, ID.format(1), 1).entry == 1
    service.entry, service.spent = 5, 2000
    assert verifier.receipt(receipt(service, 2), ID.format(2), 1).entry == 5


def test_the_old_key_signs_for_no_later_entry(service, folder):
    open_store(folder, described(service))
    old = service.key
    service.rotate()
    description = described(service)
    verifier = Verifier.of(description, open_store(folder, description))
    service.entry, service.key = 7, old
    with pytest.raises(AnswerRejected, match="not to be trusted"):
        verifier.receipt(receipt(service, 1), ID.format(1), 1)


def test_a_key_that_the_pinned_one_did_not_endorse_is_refused(service, folder):
    open_store(folder, described(service))
    before = (folder / PIN).read_bytes()
    service.rotate(endorser=Ed25519PrivateKey.generate())
    with pytest.raises(UserError, match=r"its public key changed .*is not endorsed by the one"):
        open_store(folder, described(service))
    assert (folder / PIN).read_bytes() == before


def test_an_endorsement_of_another_entry_or_ledger_is_none(service, folder):
    open_store(folder, described(service))
    service.rotate()
    public, entry, endorsement = service.keys[-1]
    service.keys[-1] = (public, entry + 1, endorsement)
    with pytest.raises(UserError, match="not endorsed"):
        open_store(folder, described(service))


def test_a_new_key_alone_is_refused(service, folder, new_service):
    open_store(folder, described(service))
    stranger = new_service(ledger_id=service.ledger_id)
    with pytest.raises(UserError, match="its public key changed"):
        open_store(folder, described(stranger))


def test_a_history_shorter_than_before_is_refused(service, folder):
    open_store(folder, described(service))
    old, keys = service.key, list(service.keys)
    service.rotate()
    open_store(folder, described(service))
    service.key, service.keys = old, keys
    with pytest.raises(UserError, match="restored from a copy"):
        open_store(folder, described(service))


def test_a_pin_of_before_keys_could_be_rotated_is_read(service, folder):
    store = open_store(folder, described(service))
    values = json.loads((folder / PIN).read_text())
    del values["keys"]
    (folder / PIN).write_text(json.dumps(values))
    service.rotate()
    open_store(folder, described(service))
    assert len(Pin.read(store.folder).keys.keys) == 2


@pytest.mark.parametrize("keys", [0, 1])
def test_a_pin_whose_keys_are_not_those_that_it_names_is_refused(service, folder, keys):
    open_store(folder, described(service))
    values = json.loads((folder / PIN).read_text())
    values["keys"] = values["keys"][:keys]
    values["public_key"] = "11" * 32
    with pytest.raises(ValueError, match="do not begin"):
        Pin.from_json(values)


def test_the_other_things_pinned_never_change(service, folder):
    description = described(service)
    open_store(folder, description)
    for changed, name in (
        (replace(description, ledger_id="b" * 32), "ledger id"),
        (replace(description, promise=replace(description.promise, epsilon=8.0)), "promise"),
        (replace(description, taps=description.taps[:1]), "charge"),
    ):
        with pytest.raises(UserError, match=f"its .*{name}.* changed"):
            open_store(folder, changed)
