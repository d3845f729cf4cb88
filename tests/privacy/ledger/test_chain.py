"""The chain, recomputed from its description with nothing but the standard library."""

import hashlib
import json
from dataclasses import replace
from datetime import datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy import canonical_json
from privacy.ledger.chain import NOTHING_NEW, Entry, EntryKind, answers_digest


def test_an_export_can_be_verified_from_the_documentation_alone(ledger, asker, tmp_path) -> None:
    for number in range(4):
        asker.settle(ledger, f"r{number}", f"s{number}", client="änne")
    ledger.set_cap("änne", 1000)
    ledger.export(tmp_path / "log.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "format": "ktan-ledger-log-1",
        "ledger_id": ledger.ledger_id,
        "public_key": ledger.public_key.hex(),
    }
    previous, spent = "00" * 32, 0
    for number, line in enumerate(lines[1:-1]):
        entry = line["entry"]
        content = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
        assert hashlib.sha256(b"ktan.ledger.entry.v1\n" + content).hexdigest() == line["hash"]
        assert (entry["number"], entry["previous"]) == (number, previous)
        spent += entry["charge"]
        assert entry["spent_after"] == spent
        assert datetime.fromisoformat(entry["time"]).utcoffset().total_seconds() == 0
        previous = line["hash"]
    head = lines[-1]["head"]
    assert (head["entry"], head["entry_hash"], head["spent"]) == (5, previous, 400)
    assert lines[1]["entry"]["details"]["plan"]["answer_units"] == ledger.plan.answer_units


def test_an_export_may_begin_later(ledger, asker) -> None:
    for number in range(3):
        asker.settle(ledger, f"r{number}", f"s{number}")
    whole, rest = list(ledger.log_lines()), list(ledger.log_lines(2))
    assert len(whole) == 6
    assert rest == [whole[0], *whole[3:]]


def test_the_log_holds_nothing_of_samples_or_answers(ledger, asker) -> None:
    key = asker.pending(ledger, "a").key
    asker.settle(ledger, "r1", "a", payload=b"the noisy answer")
    log = b"".join(list(ledger.log_lines()))
    for secret in (b"the noisy answer", b"the noisy answer".hex().encode(), key.hex().encode()):
        assert secret not in log


def test_the_digest_of_answers_commits_to_keys_payloads_and_their_borders() -> None:
    one, two = bytes(32), bytes([1]) * 32
    digests = {
        answers_digest([]),
        answers_digest([(one, b"ab")]),
        answers_digest([(two, b"ab")]),
        answers_digest([(one, b"ab"), (two, b"")]),
        answers_digest([(two, b""), (one, b"ab")]),
        answers_digest([(one, b"a"), (two, b"b")]),
    }
    assert len(digests) == 6
    assert answers_digest([]) == NOTHING_NEW


def test_every_field_of_an_entry_is_under_its_hash(ledger, asker) -> None:
    asker.settle(ledger, "r1", "a")
    entry = list(ledger.entries())[1]
    changes = {
        "number": 2,
        "previous": bytes(32),
        "kind": "training",
        "time": "2030-01-01T00:00:00.000000Z",
        "client": "bob",
        "request_id": "r2",
        "teacher_version": "v2",
        "releases": 2,
        "charge": 99,
        "draws": 9,
        "spent_after": 99,
        "draws_after": 9,
        "answers_digest": bytes(32),
        "details": {"new": 2},
    }
    assert changes.keys() == Entry.__dataclass_fields__.keys()
    for name, value in changes.items():
        assert replace(entry, **{name: value}).hash() != entry.hash()
    assert Entry.from_json(entry.to_json()) == entry


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", "refund"), ("charge", -1), ("number", True), ("details", []), ("previous", "00")],
)
def test_an_entry_of_another_form_is_refused(ledger, field, value) -> None:
    entry = next(ledger.entries()).to_json()
    with pytest.raises(ValueError):  # noqa: PT011
        Entry.from_json(entry | {field: value})


texts = st.text(max_size=30)
counts = st.integers(0, 2**62)
hashes = st.binary(min_size=32, max_size=32)


@given(
    st.builds(
        Entry,
        number=counts,
        previous=hashes,
        kind=st.sampled_from(get_args(EntryKind)),
        time=texts,
        client=texts,
        request_id=texts,
        teacher_version=texts,
        releases=counts,
        charge=counts,
        draws=counts,
        spent_after=counts,
        draws_after=counts,
        answers_digest=hashes,
        details=st.fixed_dictionaries({"new": counts | texts})
        | st.dictionaries(texts, texts | counts | st.none() | st.lists(st.floats(0, 1))),
    )
)
def test_the_written_out_form_of_an_entry_is_the_canonical_one(entry: Entry) -> None:
    assert entry.canonical() == canonical_json.encode(entry.to_json())
