"""`privacy-audit receipts`: all fit, or the first that does not is named in one line."""

import json
from dataclasses import replace

import pytest

from privacy.audit.receipts_check import check_among_themselves
from privacy.budget import spent_epsilon
from privacy.key_history import KeyHistory
from privacy.receipts import sign


@pytest.fixture
def log(original, tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join(original.lines) + b"\n")
    return path


@pytest.fixture
def pinned(original, answers):
    """The answers folder of a student that pinned the ledger's key."""
    pin = {"public_key": original.keys.public.hex()}
    (answers / "service.json").write_text(json.dumps(pin))
    return answers


def replaced(original, answers, of: str, **changes) -> None:
    """One receipt in the folder, changed and signed anew by the custodian."""
    [receipt] = [item for item in original.receipts if item.request_id == of]
    changed = sign(replace(receipt, **changes), original.keys.signing)
    (answers / f"{of}.json").write_bytes(changed.to_json_bytes())


def test_receipts_that_fit_are_one_line_with_counts_epsilon_and_head(
    run, original, answers, log
) -> None:
    code, out, err = run("receipts", answers, "--log", log)
    assert (code, err) == (0, "")
    assert len(out.strip().splitlines()) == 1
    assert out.startswith("VERIFIED: 5 receipts of 'alice', 'bob' fit the log (entries 1 to 7")
    plan = original.check().opening.plan
    assert f"600,000 units charged, ε = {spent_epsilon(plan, 600_000):.3f} of 2 at δ = 1e-05" in out
    assert f"head: entry 7, {original.heads[-1].entry_hash.hex()}" in out
    assert "replace-one, for these receipts alone (all clients together had spent ε = " in out


def test_the_ledgers_own_folder_is_a_log_too(run, original, answers) -> None:
    code, out, _ = run("receipts", answers, "--log", original.folder, "--json")
    report = json.loads(out)
    assert (code, report["fits"], report["misfit"]) == (0, True, None)
    assert (report["receipts"], report["first_entry"], report["last_entry"]) == (5, 1, 7)
    assert report["charge"] == 600_000


@pytest.mark.parametrize(
    ("request_id", "changes", "entry", "words"),
    [
        ("r2", {"charge": 1}, 3, "r2.json says charge 1, entry 3 says 100000"),
        ("r3", {"client": "bob"}, 5, "r3.json says client 'bob', entry 5 says 'alice'"),
        ("r1", {"request_id": "r9"}, 1, "says request id 'r9', entry 1 says 'r1'"),
        ("r4", {"spent": 7}, 6, "says that 7 units were spent after entry 6"),
        ("r5", {"entry_hash": bytes(32)}, 7, "names another entry 7 than the log has"),
        ("r5", {"entry": 9}, 9, "the log ends at entry 7"),
        ("r2", {"ledger_id": "00" * 16}, 3, "is of ledger 0000"),
        ("r2", {"epsilon_spent": 0.0}, 3, "states less ε"),
    ],
)
def test_the_first_that_does_not_fit_is_named(
    run, original, answers, log, request_id, changes, entry, words
) -> None:
    replaced(original, answers, request_id, **changes)
    # A later one that does not fit either must not hide the first.
    broken = json.loads((answers / "r5.json").read_bytes())
    if request_id != "r5":
        (answers / "r5.json").write_text(json.dumps(broken | {"charge": 3}))
    code, out, err = run("receipts", answers, "--log", log)
    assert code == 1
    assert out.startswith(f"DOES NOT FIT: entry {entry}: ")
    assert words in out
    assert len(out.strip().splitlines()) == 1
    assert "receipts do NOT fit" in err


def test_a_changed_receipt_has_no_valid_signature(run, answers, log) -> None:
    value = json.loads((answers / "r4.json").read_bytes())
    (answers / "r4.json").write_text(json.dumps(value | {"charge": 3}))
    code, out, _ = run("receipts", answers, "--log", log)
    assert code == 1
    assert "entry 6: the receipt of client 'alice' in" in out
    assert "r4.json carries no valid signature" in out


def test_a_receipt_that_cannot_be_read_is_named(run, answers, log) -> None:
    value = json.loads((answers / "r4.json").read_bytes())
    (answers / "r4.json").write_text(json.dumps(value | {"charge": -3}))
    code, out, _ = run("receipts", answers, "--log", log)
    assert code == 1
    assert "r4.json cannot be read" in out


def test_a_log_that_does_not_verify_vouches_for_nothing(run, original, answers, tmp_path) -> None:
    """Entry 4 is no client's: no receipt can tell that it was edited."""
    edited = tmp_path / "edited.jsonl"
    edited.write_bytes(b"\n".join(original.edited(4, time="2020-01-01T00:00:00.000000Z")))
    code, out, err = run("receipts", answers, "--log", edited)
    assert code == 1
    assert "the log does not verify: entry 4 was edited" in out
    assert "privacy-audit ledger" in err


def test_without_a_log_receipts_are_held_against_one_another(run, pinned) -> None:
    code, out, _ = run("receipts", pinned)
    assert code == 0
    assert out.startswith("CONSISTENT: 5 receipts of 'alice', 'bob' fit one another")
    assert "Held against no log" in out


def test_without_a_log_and_without_a_key_nothing_can_be_said(run, answers) -> None:
    code, out, err = run("receipts", answers)
    assert (code, out) == (2, "")
    assert "--public-key" in err


@pytest.mark.parametrize(
    ("request_id", "changes", "entry", "words"),
    [
        ("r4", {"spent": 300_000}, 6, "the ledger was rolled back between the two"),
        ("r4", {"entry": 5}, 5, "two different entries 5"),
        ("r4", {"request_id": "r1"}, 6, "it was charged twice"),
        ("r4", {"budget": 1}, 6, "another promise or budget"),
        ("r4", {"ledger_id": "00" * 16}, 6, "is of ledger 0000"),
    ],
)
def test_receipts_that_contradict_one_another(
    run, original, pinned, request_id, changes, entry, words
) -> None:
    replaced(original, pinned, request_id, **changes)
    code, out, _ = run("receipts", pinned)
    assert code == 1
    assert out.startswith(f"DOES NOT FIT: entry {entry}: ")
    assert words in out


def test_copies_of_one_receipt_are_charged_once(original) -> None:
    keys = KeyHistory.starting_with(original.receipts[0].ledger_id, original.keys.public)
    report = check_among_themselves(keys, original.kept_receipts * 2)
    assert report.misfit is None
    assert (report.receipts, report.entries, report.charge) == (10, 5, 600_000)
