"""Every way to falsify a log is found, each with its own message and entry number.

The table is tampering.py; the second test prints it as tampering → message.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.privacy.audit.found import found
from tests.privacy.audit.tampering import TAMPERINGS


@pytest.mark.parametrize("tampering", TAMPERINGS, ids=lambda one: one.name)
def test_a_false_log_is_told_offline(original, tmp_path, tampering) -> None:
    lines, evidence = tampering.how(original, tmp_path)
    report = original.check(lines, **evidence)
    found(report, tampering.kind, tampering.entry, tampering.words)


def test_each_has_its_own_message(original, tmp_path, capsys) -> None:
    """Tampering → message, as a table; no two are told in the same words."""
    told: dict[str, str] = {}
    for number, tampering in enumerate(TAMPERINGS):
        folder = tmp_path / str(number)
        folder.mkdir()
        lines, evidence = tampering.how(original, folder)
        report = original.check(lines, **evidence)
        [message] = {
            item.message
            for item in report.violations
            if (item.kind, item.entry) == (tampering.kind, tampering.entry)
            and tampering.words in item.message
        }
        told[tampering.name] = f"{tampering.kind.upper():<10}  {message}"
    with capsys.disabled():
        width = max(map(len, told))
        print("\n" + "\n".join(f"{name:<{width}}  {text}" for name, text in told.items()))
    unmistakable = [told[item.name] for item in TAMPERINGS if not item.path]
    assert len(set(unmistakable)) == len(unmistakable) >= 25


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


def test_several_dropped_entries(original) -> None:
    lines = original.lines[:3] + original.lines[6:]
    found(original.check(lines), "dropped", 2, "entries 2 to 4 are missing")


def test_the_opening_entry_dropped(original) -> None:
    found(original.check([original.lines[0], *original.lines[2:]]), "dropped", 0, "entry 0")


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
