"""Every way to falsify a log, each found, each with its own message and entry number.

Entries: 0 open, 1 alice r1, 2 training, 3 bob r2, 4 cap, 5 alice r3, 6 alice r4, 7 bob r5.
"""

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.audit.ledger_check import check
from privacy.audit.log import folder_faults
from privacy.audit.sources import read_log as read_from
from privacy.audit.wire import Connection
from privacy.budget import spent_epsilon
from privacy.errors import LedgerCorrupt, LedgerMissing, PrivacyError
from privacy.ledger import Ledger, PendingAnswer
from privacy.ledger.chain import Entry, entry_line, head_line
from privacy.ledger.keys import LedgerKeys
from privacy.receipts import sign


def read_log(path):
    return read_from(str(path), Connection())


def found(report, kind: str, entry: int | None, words: str) -> None:
    """There is a violation of this kind, at this entry, that says this."""
    assert not report.sound
    said = [(item.kind, item.entry, item.message) for item in report.violations]
    assert any(item[:2] == (kind, entry) and words in item[2] for item in said), said


def test_an_honest_log_verifies_with_all_evidence(original) -> None:
    heads = [(Path("head"), head) for head in original.heads]
    report = original.with_receipts(heads=heads, known=[("given", original.keys.public)])
    assert report.violations == ()
    assert (report.entries, report.receipts, report.heads) == (8, 5, 5)
    assert (report.spent, report.draws, report.training_used) == (600_000, 60, 1)
    clients = {client.client: client for client in report.clients}
    assert (clients["alice"].spent, clients["alice"].requests, clients["alice"].new_answers) == (
        400_000,
        3,
        4,
    )
    assert (clients["bob"].spent, clients["bob"].cap, clients["bob"].left) == (
        200_000,
        2_000_000,
        1_800_000,
    )
    assert clients["alice"].left == 9_400_000
    plan = report.opening.plan
    assert report.epsilon_spent == spent_epsilon(plan, 600_000)
    assert clients["bob"].epsilon == spent_epsilon(plan, 200_000)


@pytest.mark.parametrize(
    "changes",
    [
        {"charge": 100_000, "spent_after": 100_000},
        {"client": "carol"},
        {"time": "2020-01-01T00:00:00.000000Z"},
        {"answers_digest": "00" * 32},
        {"teacher_version": "v2"},
    ],
)
@pytest.mark.parametrize("number", [1, 3, 7])
def test_an_edited_entry(original, number, changes) -> None:
    report = original.check(original.edited(number, **changes))
    found(report, "edited", number, f"entry {number} was edited")
    assert not any(item.kind == "forked" for item in report.violations)


def test_an_edited_entry_with_its_hash_done_anew(original) -> None:
    lines = original.edited(3, client="alice")
    entry = json.loads(lines[4])["entry"]
    edited = Entry.from_json(entry)
    lines[4] = entry_line(edited.canonical(), edited.hash())
    found(original.check(lines), "edited", 4, "entry 4 does not follow entry 3")


def test_a_dropped_entry(original) -> None:
    lines = original.lines[:4] + original.lines[5:]
    report = original.check(lines)
    found(report, "dropped", 3, "entry 3 is missing")
    assert len(report.violations) == 1


def test_several_dropped_entries(original) -> None:
    lines = original.lines[:3] + original.lines[6:]
    found(original.check(lines), "dropped", 2, "entries 2 to 4 are missing")


def test_the_opening_entry_dropped(original) -> None:
    found(original.check([original.lines[0], *original.lines[2:]]), "dropped", 0, "entry 0")


def test_reordered_entries(original) -> None:
    lines = list(original.lines)
    lines[4], lines[6] = lines[6], lines[4]
    report = original.check(lines)
    found(report, "reordered", 4, "entry 4 stands after entry 5")
    assert {item.kind for item in report.violations} == {"reordered"}


def test_reordered_by_number(original) -> None:
    """Two entries swapped and renumbered, without doing the hashes anew."""
    lines = list(original.lines)
    third, fifth = json.loads(lines[4]), json.loads(lines[6])
    third["entry"]["number"], fifth["entry"]["number"] = 5, 3
    lines[4], lines[6] = (
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        for value in (fifth, third)
    )
    report = original.check(lines)
    found(report, "edited", 3, "entry 3 was edited")
    found(report, "edited", 5, "entry 5 was edited")


def test_an_entry_twice(original) -> None:
    lines = [*original.lines[:5], original.lines[4], *original.lines[5:]]
    found(original.check(lines), "repeated", 3, "entry 3 stands in the log twice")


def test_two_entries_of_one_number(original) -> None:
    other = original.rewritten(lambda entries: [replace(e, time="later") for e in entries])
    lines = [*original.lines[:5], other[4], *original.lines[5:]]
    found(original.check(lines), "forked", 3, "two different entries 3")


def test_truncated_before_its_own_head(original) -> None:
    lines = [*original.lines[:-3], original.lines[-1]]
    report = original.check(lines)
    found(report, "truncated", 7, "the log ends at entry 5, its own signed head names entry 7")
    assert len(report.violations) == 1


def test_truncated_with_the_head_cut_off_too(original) -> None:
    found(original.check(original.lines[:-3]), "truncated", None, "without a signed head")


def test_truncated_with_an_older_head_put_back(original) -> None:
    """Signed and whole: only what others kept can tell."""
    lines = [*original.lines[:3], head_line(original.heads[0])]
    assert original.heads[0].entry == 1
    assert original.check(lines).sound
    report = original.with_receipts(lines)
    found(report, "truncated", 3, "the log ends at entry 1, the receipt of client 'bob'")
    found(report, "truncated", 7, "names entry 7")
    report = original.check(lines, heads=[(Path("kept.json"), original.heads[-1])])
    found(report, "truncated", 7, "the head kept in kept.json names entry 7")


def test_entries_after_the_signed_head(original) -> None:
    longer = original.rewritten(lambda entries: [*entries, replace(entries[-1], request_id="r6")])
    found(original.check(longer), "unsigned", 8, "no signature covers the rest")


def test_these_tests_can_rewrite_a_log_exactly(original) -> None:
    assert original.rewritten(lambda entries: entries) == original.lines
    assert original.rewritten(lambda entries: entries, signer=original.keys) == original.lines


def without_training(entries):
    return [entry for entry in entries if entry.kind != "training"]


def cheaper(entries):
    return [replace(e, charge=1, draws=1) if e.request_id == "r4" else e for e in entries]


@pytest.mark.parametrize("change", [without_training, cheaper])
def test_a_log_rewritten_without_the_key(original, change) -> None:
    report = original.check(original.rewritten(change))
    assert {item.kind for item in report.violations} <= {"forked", "truncated"}
    assert not report.sound


@pytest.mark.parametrize(("change", "entry"), [(without_training, 3), (cheaper, 6)])
def test_a_log_rewritten_by_the_custodian_is_told_by_receipts(original, change, entry) -> None:
    lines = original.rewritten(change, signer=original.keys)
    assert original.check(lines).sound
    report = original.with_receipts(lines)
    found(report, "forked", entry, "names another entry")
    first = min(item.entry for item in report.violations)
    assert first == entry
    heads = [(Path("kept"), head) for head in original.heads]
    found(original.check(lines, heads=heads), "forked", entry, "the head kept in kept")


def test_receipts_of_two_copies_that_were_served_apart(original, tmp_path) -> None:
    """No log is needed to see it: both receipts are signed and both say entry 8."""
    receipts = []
    for name, payload in (("one", b"1"), ("two", b"2")):
        folder, witness = tmp_path / name, tmp_path / f"{name}.json"
        shutil.copytree(original.folder, folder)
        shutil.copy(original.witness, witness)
        with Ledger.open(folder, witness=witness) as ledger:
            key = ledger.sample_key(b"z", "v1", b"")
            settled = ledger.settle(name, "r9", b"c", [PendingAnswer(key, 100, 1, payload)], "v1")
            receipts.append((Path(f"{name}.json"), settled.receipt))
            lines = ledger.export_lines()
    report = original.check(lines, receipts=receipts)
    found(report, "forked", 8, "served from two copies")
    assert original.check(lines, receipts=receipts[1:]).sound


def test_a_log_signed_by_somebody_else(original) -> None:
    stranger = Ed25519PrivateKey.generate()
    public = stranger.public_key().public_bytes_raw()
    found(original.check(known=[("given", public)]), "key", None, "another ledger's log")


def test_a_log_rewritten_under_another_key_is_told_by_the_known_key(original) -> None:
    stranger = LedgerKeys(Ed25519PrivateKey.generate(), bytes(32))

    def mine(entries):
        details = {**entries[0].details, "public_key": stranger.public.hex()}
        return [replace(entries[0], details=details), *cheaper(entries[1:])]

    lines = original.rewritten(mine, signer=stranger)
    lines[0] = lines[0].replace(original.keys.public.hex().encode(), stranger.public.hex().encode())
    assert original.check(lines).sound
    found(original.check(lines, known=[("given", original.keys.public)]), "key", None, "somebody else")
    found(original.with_receipts(lines), "receipt", 1, "no valid signature")


def test_a_forged_receipt(original) -> None:
    forged = replace(original.receipts[0], charge=0)
    report = original.check(receipts=[(Path("forged.json"), forged)])
    found(report, "receipt", 1, "no valid signature")


def test_a_receipt_of_another_ledger(original) -> None:
    other = sign(replace(original.receipts[0], ledger_id="00" * 16), original.keys.signing)
    found(original.check(receipts=[(Path("x"), other)]), "receipt", 1, "is of ledger 0000")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"charge": 1}, "says charge 1, entry 1 says 200000"),
        ({"client": "bob"}, "says client 'bob'"),
        ({"request_id": "r9"}, "says request id 'r9'"),
        ({"draws": 1}, "says noise draws 1"),
        ({"epsilon_spent": 0.0}, "states less ε"),
        ({"budget": 1}, "another promise or budget"),
    ],
)
def test_a_receipt_that_the_custodian_signed_and_the_log_does_not_bear_out(
    original, change, words
) -> None:
    signed = sign(replace(original.receipts[0], **change), original.keys.signing)
    found(original.check(receipts=[(Path("r"), signed)]), "receipt", 1, words)


def test_a_receipt_with_another_total(original) -> None:
    signed = sign(replace(original.receipts[0], spent=1), original.keys.signing)
    found(original.check(receipts=[(Path("r"), signed)]), "accounts", 1, "1 units were spent")


def overcharged(entries):
    return [replace(e, charge=20_000_000) if e.request_id == "r4" else e for e in entries]


def charged_twice(entries):
    return [*entries, entries[-1]]


def over_the_cap(entries):
    return [
        *entries,
        replace(entries[-1], request_id="r6", charge=1_900_000),
    ]


def unreserved(entries):
    return [*entries, replace(entries[2], request_id="training:teacher-2")]


def free_lunch(entries):
    return [replace(e, details={"new": 0}) if e.request_id == "r4" else e for e in entries]


@pytest.mark.parametrize(
    ("change", "entry", "words"),
    [
        (overcharged, 6, "of a budget of 10000000"),
        (charged_twice, 8, "request id r5 was charged before, by entry 7"),
        (over_the_cap, 8, "of its cap of 2000000"),
        (unreserved, 8, "does not reserve any more"),
        (free_lunch, 6, "charges although it stores no new answer"),
    ],
)
def test_a_custodian_who_breaks_the_rules_and_signs_it(original, change, entry, words) -> None:
    lines = original.rewritten(change, signer=original.keys)
    found(original.check(lines), "accounts", entry, words)


def test_sums_that_do_not_add_up(original) -> None:
    lines = original.edited(6, spent_after=400_000)
    found(original.check(lines), "accounts", 6, "do not add up: 500000 and not 400000")


def test_a_plan_that_does_not_keep_its_promise(original) -> None:
    def generous(entries):
        details = json.loads(json.dumps(entries[0].details))
        details["plan"]["answer_units"] = 10**15
        return [replace(entries[0], details=details), *entries[1:]]

    lines = original.rewritten(generous, signer=original.keys)
    found(original.check(lines), "plan", 0, "does not keep its promise")


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b"\xff", b'{"entry":{}}', b'{"head":{}}'])
def test_a_line_that_is_nothing(original, line) -> None:
    lines = [*original.lines[:4], line, *original.lines[5:]]
    report = original.check(lines)
    found(report, "unreadable", None, "line 5")
    found(report, "dropped", 3, "entry 3")


def test_a_line_in_another_form_is_not_the_line(original) -> None:
    lines = list(original.lines)
    lines[4] = json.dumps(json.loads(lines[4])).encode()
    found(original.check(lines), "unreadable", None, "line 5")


def test_an_absurd_number_is_reported_and_not_counted_up_to(original) -> None:
    lines = original.edited(7, number=10**15)
    found(original.check(lines), "dropped", 7, f"entries 7 to {10**15 - 1} are missing")


def test_reads_a_folder_as_well_as_an_export(original, tmp_path) -> None:
    log = read_log(original.folder)
    assert check(log, tables=folder_faults(original.folder, log)).sound
    export = tmp_path / "log.jsonl"
    export.write_bytes(b"\n".join(original.lines) + b"\n")
    assert read_log(export).recorded == log.recorded


FOLDER_CHANGES = {
    "a refund": ("UPDATE state SET spent = 0", "tables", None, "totals"),
    "a stored answer replaced": (
        "UPDATE answers SET payload = x'00' WHERE entry = 3",
        "tables",
        3,
        "answers it stored were changed",
    ),
    "a stored answer removed": ("DELETE FROM answers WHERE entry = 3", "tables", None, "answers"),
    "an entry edited": (
        "UPDATE entries SET body = replace(CAST(body AS TEXT), 'alice', 'carol') WHERE number = 1",
        "edited",
        1,
        "was edited",
    ),
    "an entry dropped": ("DELETE FROM entries WHERE number = 3", "dropped", 3, "missing"),
    "the end dropped": ("DELETE FROM entries WHERE number > 5", "truncated", 7, "cut off"),
    "an entry garbled": ("UPDATE entries SET body = 17 WHERE number = 3", "dropped", 3, "missing"),
    "a hash garbled": ("UPDATE entries SET hash = NULL", None, None, ""),
}


@pytest.mark.parametrize("name", FOLDER_CHANGES)
def test_a_folder_that_was_tampered_with(original, tmp_path, name) -> None:
    sql, kind, entry, words = FOLDER_CHANGES[name]
    folder = tmp_path / "ledger"
    shutil.copytree(original.folder, folder)
    connection = sqlite3.connect(folder / "ledger.sqlite")
    if kind is None:
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(sql)
        return
    connection.execute(sql)
    connection.commit()
    connection.close()
    log = read_log(folder)
    report = check(log)
    if report.sound:
        report = check(log, tables=folder_faults(folder, log))
    found(report, kind, entry, words)


def test_reading_a_folder_changes_nothing_in_it(original, tmp_path) -> None:
    folder = tmp_path / "ledger"
    shutil.copytree(original.folder, folder)
    before = (folder / "ledger.sqlite").read_bytes()
    folder_faults(folder, read_log(folder))
    assert (folder / "ledger.sqlite").read_bytes() == before


def test_what_is_no_log_is_a_mistake_and_not_a_violation(tmp_path) -> None:
    with pytest.raises(LedgerMissing):
        read_log(tmp_path / "nothing")
    with pytest.raises(LedgerMissing, match="no ledger in"):
        read_log(tmp_path)
    (tmp_path / "file").write_text("hello\n")
    with pytest.raises(PrivacyError, match="not the log of a ledger"):
        read_log(tmp_path / "file")
    (tmp_path / "empty").write_text("")
    with pytest.raises(PrivacyError, match="not the log of a ledger"):
        read_log(tmp_path / "empty")


def test_a_database_that_says_nothing_is_corrupt(original, tmp_path) -> None:
    folder = tmp_path / "ledger"
    shutil.copytree(original.folder, folder)
    connection = sqlite3.connect(folder / "ledger.sqlite")
    connection.execute("DELETE FROM state")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerCorrupt, match="cannot be read"):
        read_log(folder)
