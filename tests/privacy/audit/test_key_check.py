"""A ledger whose signing key was rotated: who vouches for which entry, and what is no rotation.

Entries: 0 open, 1 alice r1, 2 a new key, 3 bob r2, 4 another new key, 5 alice r3.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.audit.ledger_check import check
from privacy.audit.log import folder_faults
from privacy.audit.sources import read_log
from privacy.audit.wire import Connection
from privacy.budget import open_plan
from privacy.key_history import SigningKey, endorse
from privacy.ledger import Ledger, PendingAnswer
from privacy.ledger.chain import head_line
from privacy.ledger.keys import LedgerKeys
from privacy.receipts import sign
from tests.privacy.audit.audited import Case, known
from tests.privacy.audit.found import found


@pytest.fixture(scope="module")
def rotated(tmp_path_factory) -> tuple[Case, list[LedgerKeys]]:
    """The case, and every key that ever signed, as only a thief could have kept them."""
    place = tmp_path_factory.mktemp("rotated")
    folder, witness = place / "ledger", place / "elsewhere" / "head.json"
    case, keys = Case(folder, witness, [], [], []), []
    plan = open_plan(2.0, 1e-5)
    with Ledger.create(folder, dataset_id="glyphs", plan=plan, witness=witness) as ledger:

        def ask(client: str, request_id: str) -> None:
            key = ledger.sample_key(request_id.encode(), "v1", b"")
            pending = [PendingAnswer(key, 100_000, 10, b"noisy")]
            case.receipts.append(ledger.settle(client, request_id, b"c", pending, "v1").receipt)
            case.heads.append(ledger.head())
            keys.append(LedgerKeys.read(folder))

        ask("alice", "r1")
        ledger.rotate_key()
        ask("bob", "r2")
        ledger.rotate_key()
        ask("alice", "r3")
        case.lines = list(ledger.log_lines())
    return case, keys


@pytest.fixture
def case(rotated) -> Case:
    return rotated[0]


@pytest.fixture
def keys(rotated) -> list[LedgerKeys]:
    return rotated[1]


def test_each_receipt_and_head_by_the_key_of_its_entry(case, keys) -> None:
    heads = [(Path("kept"), head) for head in case.heads]
    for some in ([], [keys[0]], [keys[1]], keys):
        report = case.with_receipts(heads=heads, known=known(*some))
        assert report.violations == ()
    history = [(key.public_key, key.entry) for key in report.keys]
    assert history == [(keys[0].public, 0), (keys[1].public, 2), (keys[2].public, 4)]


def test_a_folder_and_an_export_of_it_say_the_same(case) -> None:
    log = read_log(str(case.folder), Connection())
    assert log.lines == case.lines
    assert check(log, tables=folder_faults(case.folder, log)).sound


def handed_over(case: Case, signer: LedgerKeys, key: SigningKey) -> list[bytes]:
    """The log with another entry 2, and everything after it done anew by `signer`."""

    def change(entries):
        return [*entries[:2], replace(entries[2], details=key.details())]

    return case.rewritten(change, signer=signer)


def test_a_key_that_the_one_before_did_not_endorse(case, keys) -> None:
    thief = LedgerKeys(Ed25519PrivateKey.generate(), bytes(32))
    ledger_id = json.loads(case.lines[0])["ledger_id"]
    false = {
        "endorsed by itself": endorse(thief.signing, ledger_id, 2, thief.public),
        "for another entry": endorse(keys[0].signing, ledger_id, 3, thief.public),
        "for another ledger": endorse(keys[0].signing, "00" * 16, 2, thief.public),
        "of another key": endorse(keys[0].signing, ledger_id, 2, keys[1].public),
    }
    for name, key in false.items():
        lines = handed_over(case, thief, replace(key, public_key=thief.public))
        report = case.check(lines)
        found(report, "key", 2, "entry 2 hands over to a signing key that the one before it")
        assert len(report.violations) == 1, name
    # The same with a true endorsement holds together; receipts know better.
    lines = handed_over(case, thief, endorse(keys[0].signing, ledger_id, 2, thief.public))
    assert case.check(lines).sound
    found(case.with_receipts(lines), "receipt", 3, "no valid signature")
    found(case.check(lines, known=known(keys[1])), "key", None, "signed by somebody else")


def test_a_key_that_was_rotated_out_signs_for_nothing_later(case, keys) -> None:
    late = sign(replace(case.receipts[2], charge=0), keys[0].signing)
    report = case.check(receipts=[(Path("late.json"), late)])
    found(report, "key", 5, "the ledger's key of entry 0, which was not its key at entry 5")
    early = sign(case.heads[0], keys[2].signing)
    report = case.check(heads=[(Path("early.json"), early)])
    found(report, "key", 1, "key of entry 4, which was not its key at entry 1")
    last = sign(case.heads[-1], keys[1].signing)
    report = case.check([*case.lines[:-1], head_line(last)])
    found(report, "key", 5, "signs with a key that was rotated out")


def test_a_key_that_the_ledger_had_before_does_not_come_back(case, keys) -> None:
    def back(entries):
        number = entries[-1].number + 1
        key = endorse(keys[2].signing, case.receipts[0].ledger_id, number, keys[0].public)
        again = replace(entries[2], number=number, details=key.details())
        return [*entries, again]

    found(case.check(case.rewritten(back, signer=keys[2])), "accounts", 6, "had before")


def test_a_log_of_before_the_rotation_is_told_by_what_came_after(case, keys) -> None:
    old = [*case.lines[:3], head_line(case.heads[0])]
    assert case.check(old).sound
    found(case.with_receipts(old), "receipt", 3, "ends before the ledger had the key")
    later = case.check(old, known=known(keys[2]))
    found(later, "key", None, "ends before the ledger had that key")


def test_a_student_that_followed_the_keys_tells_a_log_that_does_not_have_them(case, keys) -> None:
    pinned = [("service.json", case.check().keys)]
    assert case.with_receipts(known=pinned).sound
    old = [*case.lines[:3], head_line(case.heads[0])]
    report = case.with_receipts(old, known=pinned)
    found(report, "truncated", 2, "the log ends at entry 1, service.json, knows a signing key")
    # With the pin's keys, receipts of after the log's end are no mere bad signatures.
    found(report, "truncated", 3, "the receipt of client 'bob' in r2.json names entry 3")
    assert {item.kind for item in report.violations} == {"truncated"}

    def never_rotated(entries):
        return [entry for entry in entries if entry.kind != "key"]

    lines = case.rewritten(never_rotated, signer=keys[0])
    assert case.check(lines).sound
    found(case.check(lines, known=pinned), "forked", 2, "endorsed for entry 2")
    untrue = [replace(key, endorsement=bytes(64)) for key in pinned[0][1]]
    forged = [("service.json", replace(pinned[0][1], keys=tuple(untrue)))]
    found(case.check(known=forged), "key", 2, "service.json: the key")


def test_a_student_that_began_after_a_rotation_and_an_export_of_before_it(
    case, keys, run, tmp_path
) -> None:
    """The pin begins with a key that the log does not have, and that the log's own key endorsed."""
    old = [*case.lines[:3], head_line(case.heads[0])]
    began = case.check().keys.since(keys[1].public)
    report = case.check(old, known=[("service.json", began)], receipts=case.kept_receipts[1:])
    assert {item.kind for item in report.violations} == {"truncated"}
    found(report, "truncated", 3, "probably older than that, export it again")
    assert [key.public_key for key in report.keys] == [keys[0].public]
    # Where the pin has no endorsement, the head is still signed by the key that the log names.
    report = case.check(old, known=known(keys[1]), receipts=case.kept_receipts[1:2])
    assert [item.kind for item in report.violations] == ["key", "truncated"]
    # Another key's endorsement is no link to this log.
    thief = LedgerKeys(Ed25519PrivateKey.generate(), bytes(32))
    forged = endorse(thief.signing, case.receipts[0].ledger_id, 2, keys[1].public)
    pin = [("service.json", replace(began, keys=(forged, *began.keys[1:])))]
    found(case.check(old, known=pin), "key", None, "signed by somebody else")
    # What the log has in that entry's place is a fork.
    longer = case.rewritten(lambda all_: [*all_[:2], *all_[3:4]], signer=keys[0])
    report = case.check(longer, known=[("service.json", began)])
    found(report, "forked", 2, "the log has another entry there")
    export, pinned = tmp_path / "old.jsonl", tmp_path / "service.json"
    export.write_bytes(b"\n".join(old))
    pin_keys = [key.to_json() for key in began]
    pinned.write_text(json.dumps({"public_key": keys[1].public.hex(), "keys": pin_keys}))
    (tmp_path / "r2.json").write_bytes(case.receipts[1].to_json_bytes())
    code, out, _ = run("ledger", export, "--receipts", tmp_path)
    assert code == 1
    assert f"public key   {keys[0].public.hex()}" in out
    assert f"known from the log itself; not from {pinned}" in out
    assert "UNSIGNED" not in out


def test_the_screen_has_the_history(case, keys, run) -> None:
    code, out, _ = run("ledger", case.folder)
    assert code == 0
    assert f"public key   {keys[2].public.hex()}" in out
    assert f"since entry 4, endorsed by {keys[1].public.hex()[:16]}… (from entry 2)" in out
    assert f"since entry 2, endorsed by {keys[0].public.hex()[:16]}… (from entry 0)" in out
    code, out, _ = run("ledger", case.folder, "--json")
    assert [key["entry"] for key in json.loads(out)["keys"]] == [0, 2, 4]


def test_a_student_that_followed_the_keys_is_evidence_of_them(case, keys, run, tmp_path) -> None:
    for receipt in case.receipts:
        (tmp_path / f"{receipt.request_id}.json").write_bytes(receipt.to_json_bytes())
    pin = {
        "public_key": keys[0].public.hex(),
        "keys": [key.to_json() for key in case.check().keys],
    }
    (tmp_path / "service.json").write_text(json.dumps(pin))
    assert run("ledger", case.folder, "--receipts", tmp_path)[0] == 0
    assert run("receipts", tmp_path, "--log", case.folder)[0] == 0
    # Without a log, they are still followed by the pin's own endorsements.
    code, out, _ = run("receipts", tmp_path)
    assert (code, out.startswith("CONSISTENT: 3 receipts")) == (0, True)
    pin["keys"][1]["endorsement"] = "00" * 64
    (tmp_path / "service.json").write_text(json.dumps(pin))
    code, out, err = run("receipts", tmp_path)
    assert code == 2
    assert "not endorsed" in err
