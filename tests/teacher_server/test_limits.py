"""What the custodian's file allows each client, and how a change of it comes into force."""

import logging
import os

import pytest

from ktan.errors import UserError
from privacy.budget import open_plan
from privacy.errors import BudgetExhausted, LedgerUnreachable
from privacy.ledger import Ledger
from protos import Reason
from teacher_server.caps import cap_units
from teacher_server.desk import Desk, Ticket
from teacher_server.errors import Unavailable
from teacher_server.limits import Limits

PLAN = open_plan(4.0, 1e-5)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "limits.toml"


@pytest.fixture
def limits(path, clock):
    """Those of a file with this text."""

    def read(text):
        path.write_text(text)
        return Limits(path, PLAN, clock=clock)

    return read


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(
        tmp_path / "ledger", dataset_id="data", plan=PLAN, witness=tmp_path / "head.json"
    ) as ledger:
        yield ledger


def _refused(limits, *asked):
    with pytest.raises(Unavailable) as caught:
        limits.admit(*asked)
    assert caught.value.reason is Reason.RATE_LIMITED
    return caught.value.retry_seconds


def test_without_settings_nothing_is_limited(limits):
    free = limits("")
    for _ in range(100):
        free.admit("anna", 10_000, 10**6)


def test_a_rate_with_its_burst_and_the_exact_hint(limits, clock):
    slow = limits("[clients.anna]\nrate = 10\nburst = 30\n")
    slow.admit("anna", 20)
    slow.admit("anna", 10)
    assert _refused(slow, "anna", 5) == pytest.approx(0.5)
    # A refusal counts for nothing.
    clock.now += 0.4
    assert _refused(slow, "anna", 5) == pytest.approx(0.1)
    clock.now += 0.1
    slow.admit("anna", 5)
    slow.admit("bert", 10_000)


def test_whoever_comes_back_when_told_passes(limits, clock):
    slow = limits("[default]\nrate = 0.3\nburst = 7\n")
    for samples in (7, 1, 3, 6, 2, 7, 5) * 20:
        try:
            slow.admit("anna", samples)
        except Unavailable as refused:
            clock.now += refused.retry_seconds
            slow.admit("anna", samples)


def test_in_the_long_run_nobody_gets_more_than_the_rate(limits, clock):
    slow = limits("[default]\nrate = 10\nburst = 20\n")
    passed = 0
    for _ in range(1000):
        try:
            slow.admit("anna", 3)
            passed += 3
        except Unavailable:
            pass
        clock.now += 0.1
    assert 10 * 100 - 3 <= passed <= 10 * 100 + 20


def test_a_request_larger_than_the_burst_is_made_up_for(limits, clock):
    slow = limits("[default]\nrate = 10\n")
    slow.admit("anna", 100)
    assert _refused(slow, "anna", 1) == pytest.approx(9.1)
    clock.now += 9.1
    slow.admit("anna", 1)


def test_what_may_wait_at_once_is_counted_by_the_desk(limits, clock):
    desk = Desk(1000, clock, gate=limits("[clients.anna]\nwaiting = 10\n").admit)
    tickets = [Ticket("anna", 5, 1e9) for _ in range(3)]
    for ticket in tickets[:2]:
        desk.admit(ticket)
    with pytest.raises(Unavailable) as caught:
        desk.admit(tickets[2])
    assert caught.value.reason is Reason.RATE_LIMITED
    desk.admit(Ticket("bert", 50, 1e9))
    for ticket in desk.take(64):
        desk.finish(ticket)
        desk.leave(ticket)
    desk.admit(tickets[2])


def test_a_table_of_its_own_changes_what_it_names(limits):
    own = limits("[default]\nrate = 1\nburst = 5\nwaiting = 8\n[clients.anna]\nrate = 100\n")
    own.admit("anna", 100)
    _refused(own, "anna", 5, 5)
    own.admit("bert", 5)
    _refused(own, "bert", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[default\nrate = 1", "line 1"),
        ("[defaults]\nrate = 1", "there is no defaults; there may be default, clients"),
        ("[default]\nrates = 1", "there is no default.rates; there may be rate, burst"),
        ("[clients.anna]\nspeed = 1", "there is no clients.anna.speed"),
        ("[clients.anna.cap]\neps = 1", "there is no clients.anna.cap.eps"),
        ("[clients.anna]\nrate = 0", "clients.anna.rate is 0; it must be a number above 0"),
        ("[clients.anna]\nrate = true", "clients.anna.rate is True"),
        ("[clients.anna]\nrate = nan", "clients.anna.rate is nan"),
        ("[clients.anna]\nrate = '5'", "clients.anna.rate is '5'"),
        ("[default]\nburst = 5", "default.burst is given without a rate"),
        ("[default]\nwaiting = 0", "default.waiting is 0; it must be a number at least 1"),
        ("[default]\nwaiting = 1.5", "default.waiting is 1.5; it must be a whole number"),
        ("[default]\ncap.epsilon = 1", "fixed when a ledger is opened"),
        ("[clients.anna]\ncap = 1", "clients.anna.cap is 1; it must be a table"),
        ("[clients.anna]\ncap = {}", "must have epsilon or units, one of them"),
        ("[clients.anna]\ncap = {units = 1, epsilon = 1}", "epsilon or units, one of them"),
        ("[clients.anna]\ncap.epsilon = 5", "clients.anna.cap.epsilon: a cap of ε = 5 must lie"),
        ("[clients.anna]\ncap.units = 1.5", "must be a whole number below"),
        ("clients = 1", "clients is 1; it must be a table"),
        ("[clients]\nanna = 1", "clients.anna is 1; it must be a table"),
        ('[clients.""]\ncap.units = 1', "has '', which can be nobody's name"),
        ('[clients."anna b"]\nrate = 1', "has 'anna b', which can be nobody's name"),
    ],
)
def test_what_is_wrong_is_named(limits, text, message):
    with pytest.raises(UserError, match=r"limits\.toml.*" + message.replace("(", r"\(")):
        limits(text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        Limits(tmp_path / "nowhere.toml", PLAN)


def test_a_changed_file_is_read_and_what_was_used_stays_used(limits, path, clock):
    slow = limits("[default]\nrate = 10\nburst = 100\n")
    slow.admit("anna", 90)
    assert not slow.changed()
    path.write_text("[default]\nrate = 10\nburst = 50\n")
    assert slow.changed()
    assert slow.reload()
    assert not slow.changed()
    slow.admit("anna", 10)
    assert _refused(slow, "anna", 1) == pytest.approx(0.1)
    clock.now += 1000
    slow.admit("anna", 50)
    _refused(slow, "anna", 1)


def test_a_file_of_the_same_size_put_in_its_place_is_seen(limits, path):
    slow = limits("[default]\nrate = 10\n")
    other = path.with_suffix(".new")
    other.write_text("[default]\nrate = 20\n")
    before = path.stat()
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert slow.changed()


@pytest.mark.parametrize("broken", ["[default]\nrates = 1\n", None])
def test_a_broken_file_keeps_the_old_limits_and_is_said_once(limits, path, caplog, broken):
    slow = limits("[default]\nrate = 10\n")
    if broken is None:
        path.unlink()
    else:
        path.write_text(broken)
    assert slow.changed()
    with caplog.at_level(logging.ERROR, "teacher_server"):
        assert not slow.reload()
    assert "the limits stay as they were" in caplog.text
    assert not slow.changed()
    slow.admit("anna", 10)
    _refused(slow, "anna", 1)


def test_caps_become_entries_of_the_ledger_where_they_differ(limits, path, ledger, caplog):
    own = limits("[clients.anna]\ncap.epsilon = 0.5\n[clients.bert]\ncap.units = 12345\n")
    with caplog.at_level(logging.INFO, "teacher_server"):
        own.apply_caps(ledger)
    assert ledger.budget("anna").cap == cap_units(PLAN, 0.5)
    assert ledger.budget("bert").cap == 12345
    assert ledger.budget("carl").cap is None
    assert "the cap of client bert is now 12,345 units; the budget alone" in caplog.text
    entries = ledger.head().entry
    own.apply_caps(ledger)
    assert ledger.head().entry == entries
    path.write_text("[clients.bert]\ncap.units = 20000\n")
    own.reload()
    own.apply_caps(ledger)
    assert ledger.head().entry == entries + 1
    assert (ledger.budget("bert").cap, ledger.budget("anna").cap) == (20000, cap_units(PLAN, 0.5))


def test_raising_a_cap_lets_a_client_go_on_at_once(limits, path, ledger):
    own = limits("[clients.anna]\ncap.units = 100\n")
    own.apply_caps(ledger)
    with pytest.raises(BudgetExhausted):
        ledger.check("anna", charge=150, draws=1)
    path.write_text("[clients.anna]\ncap.units = 1000\n")
    assert own.changed()
    own.reload()
    own.apply_caps(ledger)
    ledger.check("anna", charge=150, draws=1)


def test_a_cap_that_the_ledger_did_not_take_is_set_at_a_later_look(
    limits, path, ledger, monkeypatch, caplog
):
    own = limits("")
    path.write_text("[clients.anna]\ncap.units = 100\n")

    def fail(*_):
        raise LedgerUnreachable("the database is away")

    with monkeypatch.context() as away:
        away.setattr(ledger, "set_cap", fail)
        for _ in range(3):
            own.look(ledger)
    assert ledger.budget("anna").cap is None
    assert caplog.text.count("could not be set (LedgerUnreachable); trying again") == 1
    own.look(ledger)
    assert ledger.budget("anna").cap == 100
    entries = ledger.head().entry
    ledger.set_cap("anna", 50)
    # Set once: what is decided elsewhere afterwards stays.
    own.look(ledger)
    assert (ledger.budget("anna").cap, ledger.head().entry) == (50, entries + 1)


def test_a_ledger_that_takes_no_entry_is_left_alone(limits, caplog):
    class Restored:
        rolled_back = "an older copy"

    with caplog.at_level(logging.WARNING, "teacher_server"):
        limits("[clients.anna]\ncap.units = 100\n").apply_caps(Restored())
    assert "no cap is set" in caplog.text
