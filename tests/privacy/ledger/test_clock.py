"""An entry's time tells the second, and nothing of how long private teachers took."""

import json
import re

from privacy.audit.ledger_check import check
from privacy.audit.log import parse_log
from privacy.ledger import Ledger, additions, creation

FINE = "2026-01-31T12:00:00.123456Z"


def times(ledger: Ledger) -> list[str]:
    return [json.loads(line)["entry"]["time"] for line in list(ledger.log_lines())[1:-1]]


def test_every_kind_of_entry_is_timed_to_the_second(ledger, asker) -> None:
    asker.settle(ledger, "r1", "a")
    ledger.set_cap("anna", 1000)
    found = times(ledger)
    assert len(found) == 3
    for time in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time), time


def test_entries_of_older_versions_with_microseconds_still_verify(
    place, plan, asker, monkeypatch
) -> None:
    with monkeypatch.context() as older:
        for module in (additions, creation):
            older.setattr(module, "utc_now", lambda: FINE)
        with place.create(plan) as ledger:
            asker.settle(ledger, "r1", "a")
    with place.open() as ledger:
        asker.settle(ledger, "r2", "b")
        lines = list(ledger.log_lines())
        assert times(ledger)[:2] == [FINE, FINE]
        assert len(times(ledger)[2]) < len(FINE)
    assert check(parse_log("log.jsonl", lines)).violations == ()
