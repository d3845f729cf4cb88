"""The public log comes in pieces, and is whole whatever is written meanwhile."""

import json

import pytest

from privacy.audit.ledger_check import check
from privacy.audit.log import folder_faults, parse_log
from privacy.audit.sources import read_log
from privacy.audit.wire import Connection
from privacy.ledger import export


def test_pieces_make_the_log_that_the_head_was_of(place, plan, asker, monkeypatch) -> None:
    monkeypatch.setattr(export, "_BATCH", 2)
    with place.create(plan) as ledger:
        for number in range(4):
            asker.settle(ledger, f"r{number}", f"sample {number}")
        whole, lines = list(ledger.log_lines()), ledger.log_lines()
        begun = [next(lines), next(lines)]
        # The writer is not held up, and what it adds is not in this log.
        asker.settle(ledger, "late", "another sample")
        assert begun + list(lines) == whole
        assert check(parse_log("log", whole)).sound
        assert json.loads(whole[-1])["head"]["entry"] == 4
        assert len(list(ledger.log_lines())) == len(whole) + 1


@pytest.mark.parametrize("first", [0, 1, 3, 4, 5, 99])
def test_from_any_entry_on(place, plan, asker, monkeypatch, first) -> None:
    monkeypatch.setattr(export, "_BATCH", 2)
    with place.create(plan) as ledger:
        for number in range(4):
            asker.settle(ledger, f"r{number}", f"sample {number}")
        header, *entries, head = ledger.log_lines()
        assert list(ledger.log_lines(first)) == [header, *entries[first:], head]


def test_a_gap_in_the_tables_is_shown_and_not_waited_for(place, plan, asker, monkeypatch) -> None:
    monkeypatch.setattr(export, "_BATCH", 2)
    with place.create(plan) as ledger:
        for number in range(4):
            asker.settle(ledger, f"r{number}", f"sample {number}")
        place.change("DELETE FROM entries WHERE number > 2")
        _, *entries, head = ledger.log_lines()
        assert len(entries) == 3
        assert json.loads(head)["head"]["entry"] == 4


def test_an_auditor_on_the_host_reads_the_tables_wherever_they_are(place, plan, asker) -> None:
    with place.create(plan) as ledger:
        asker.settle(ledger, "r1", "a")
        ledger.rotate_key()
        asker.settle(ledger, "r2", "b")
        log = read_log(str(place.folder), Connection())
        assert log.lines == list(ledger.log_lines())
        assert check(log, tables=folder_faults(place.folder, log)).sound
        place.change("UPDATE state SET spent = 0")
        report = check(log, tables=folder_faults(place.folder, log))
        assert [item.kind for item in report.violations] == ["tables"]
