"""Calls in threads of their own: landed as they end, hurried, and broken off."""

import threading

import pytest

from student_client import patience
from student_client.errors import TeacherUnavailable
from student_client.flight import CalledOff, Flight
from student_client.patience import patiently

PATIENCE = 120.0


def _fail(*_):
    raise AssertionError("nobody pauses here")


def test_they_land_as_they_end():
    ends = {name: threading.Event() for name in "abc"}

    def call(name):
        assert ends[name].wait(PATIENCE)
        if name == "b":
            raise ValueError(name)
        return name.upper()

    flight = Flight(call, _fail)
    for name in "abc":
        flight.launch(name)
    assert len(flight) == 3
    ends["c"].set()
    landing = flight.land()
    assert (landing.item, landing.end(), len(flight)) == ("c", "C", 2)
    ends["b"].set()
    landing = flight.land()
    with pytest.raises(ValueError, match="b"):
        landing.end()
    ends["a"].set()
    assert flight.land().end() == "A"
    assert len(flight) == 0


def test_pauses_at_the_same_time_are_said_once():
    said, together = [], threading.Barrier(3)

    def call(name):
        flight.pausing("away", 60.0)
        together.wait(PATIENCE)
        return name

    flight = Flight(call, lambda *pause: said.append(pause))
    for name in "abc":
        flight.launch(name)
    assert {flight.land().item for _ in range(3)} == set("abc")
    assert said == [("away", 60.0)]


def test_whoever_pauses_is_called_off_when_nobody_waits_any_more():
    flight = Flight(lambda name: flight.pause(PATIENCE * 10), _fail)
    flight.launch("a")
    flight.hurry()
    landing = flight.land()
    with pytest.raises(CalledOff):
        landing.end()


class _Call:
    def __init__(self):
        self.over = threading.Event()

    def cancel(self):
        self.over.set()


def test_what_is_under_way_is_broken_off_and_what_came_is_there():
    calls, watched = {name: _Call() for name in "ab"}, threading.Barrier(3)

    def ask(name):
        if name == "c":
            return name
        flight.watch(calls[name])
        watched.wait(PATIENCE)
        assert calls[name].over.wait(PATIENCE)
        raise RuntimeError("cancelled")

    flight = Flight(ask, _fail)
    for name in "cab":
        flight.launch(name)
    watched.wait(PATIENCE)
    flight.cancel()
    ended = {landing.item: landing for landing in flight.landed()}
    assert set(ended) == {"a", "b", "c"}
    assert ended["c"].end() == "c"
    # A call that begins after all is broken off too.
    late = _Call()
    flight.watch(late)
    assert late.over.is_set()


def test_what_cannot_be_launched_is_not_waited_for(monkeypatch):
    def no_thread(_):
        raise RuntimeError("can't start new thread")

    flight = Flight(lambda name: name, _fail)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            flight.launch("a")
    assert len(flight) == 0
    flight.launch("b")
    assert flight.land().end() == "b"


class _Time:
    now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize(("answered", "calls"), [(False, 3), (True, 11)])
def test_patience_begins_anew_whenever_another_call_is_answered(monkeypatch, answered, calls):
    """Ten refusals for 25 seconds each, at a patience of 60."""
    clock, made = _Time(), []
    monkeypatch.setattr(patience, "time", clock)

    def call():
        made.append(clock.now)
        if len(made) <= 10:
            raise TeacherUnavailable("slower", 25.0, from_service=True)
        return "there"

    def ask():
        others = (lambda: clock.now - 5) if answered else (lambda: -1e9)
        return patiently(call, 60.0, lambda *_: None, clock.sleep, others)

    if answered:
        assert ask() == "there"
    else:
        with pytest.raises(TeacherUnavailable):
            ask()
    assert len(made) == calls
    # As long as the service says, and not the shorter pauses of one's own.
    assert made[:3] == [0.0, 25.0, 50.0]
