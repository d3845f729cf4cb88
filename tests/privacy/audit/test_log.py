"""A log is read line by line, from a file or from a ledger's folder, and never believed."""

import shutil
import sqlite3

import pytest

from privacy.audit.ledger_check import check
from privacy.audit.log import folder_faults
from privacy.audit.sources import read_log as read_from
from privacy.audit.wire import Connection
from privacy.errors import LedgerCorrupt, LedgerMissing, PrivacyError
from tests.privacy.audit.found import found


def read_log(path):
    return read_from(str(path), Connection())


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b"\xff", b'{"entry":{}}', b'{"head":{}}'])
def test_a_line_that_is_nothing(original, line) -> None:
    lines = [*original.lines[:4], line, *original.lines[5:]]
    report = original.check(lines)
    found(report, "unreadable", None, "line 5")
    found(report, "dropped", 3, "entry 3")


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


def test_a_folder_that_hands_out_another_key(original, tmp_path) -> None:
    folder = tmp_path / "ledger"
    shutil.copytree(original.folder, folder)
    for content, words in (
        ("11" * 32, "is not the key that signs now"),
        ("no key", "no public key"),
    ):
        (folder / "public-key.pem").write_text(content)
        log = read_log(folder)
        report = check(log, tables=folder_faults(folder, log))
        found(report, "tables", None, words)


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
