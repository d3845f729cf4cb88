"""Whatever the traffic: the bound, the turns and the fairness that are stated hold."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from teacher_server.desk import Desk, Ticket
from teacher_server.errors import Unavailable
from teacher_server.turns import QUANTUM, Turns, unfairness
from tests.teacher_server.turned_clock import Clock

LATER = 1e9


@given(
    sizes=st.lists(st.lists(st.integers(1, 80), min_size=30, max_size=60), min_size=2, max_size=5),
    most=st.integers(1, 100),
    quantum=st.integers(1, 64),
)
def test_clients_with_a_backlog_are_served_alike(sizes, most, quantum):
    """While two clients both have something waiting, whatever the sizes: no further apart than
    stated, over any stretch of time."""
    turns = Turns(quantum)
    for client, samples in enumerate(sizes):
        for size in samples:
            turns.add(Ticket(str(client), size, LATER))
    left = [len(samples) for samples in sizes]
    served = [[0] for _ in sizes]
    while all(left):
        ticket = turns.pop()
        client = int(ticket.client)
        left[client] -= 1
        for number, totals in enumerate(served):
            totals.append(totals[-1] + (ticket.samples if number == client else 0))
    largest = max(size for samples in sizes for size in samples)
    for one, other in itertools.combinations(served, 2):
        # The largest difference over any stretch is that between the extremes of the running one.
        apart = [first - second for first, second in zip(one, other, strict=True)]
        assert max(apart) - min(apart) <= unfairness(quantum, largest)


class _Traffic(RuleBasedStateMachine):
    """Anything in any order, beside lists that are too simple to be wrong."""

    ROOM = 60

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.desk = Desk(self.ROOM, self.clock)
        self.waiting, self.working, self.over = [], [], []
        self.unread, self.gone = [], []
        self.told = []

    @rule(
        client=st.sampled_from("abc"),
        samples=st.integers(1, 30),
        seconds=st.sampled_from([0.5, 3.0, LATER]),
    )
    def ask(self, client, samples, seconds):
        ticket = Ticket(client, samples, self.clock.now + seconds)
        ticket.on_dropped = lambda: self.told.append(ticket)
        inside = self.waiting + self.working + self.unread
        held = sum(other.samples for other in inside if other.client == client)
        others = sum(other.samples for other in inside) - held
        fits = held + samples <= self.ROOM - others
        within = not held or held + samples <= 0.75 * (self.ROOM - others)
        refused = None
        try:
            self.desk.admit(ticket)
        except Unavailable as error:
            refused = error
        if refused is None:
            assert fits
            assert within
            self.waiting.append(ticket)
        else:
            assert 0.1 <= refused.retry_seconds <= 10
            assert not (fits and within) or "before the deadline" in str(refused)

    @precondition(lambda self: any(ticket.deadline > self.clock.now for ticket in self.waiting))
    @rule(most=st.integers(1, 40))
    def take(self, most):
        told = len(self.told)
        taken = self.desk.take(most)
        assert sum(ticket.samples for ticket in taken) <= most or len(taken) == 1
        for ticket in taken:
            assert ticket.deadline > self.clock.now
            # In the client's own order; those before it can only have been dropped.
            own = [other for other in self.waiting if other.client == ticket.client]
            before = own[: own.index(ticket)]
            assert set(before) <= set(self.told[told:])
            self.waiting = [other for other in self.waiting if other not in (*before, ticket)]
            self.working.append(ticket)
        for ticket in self.told[told:]:
            assert ticket.deadline <= self.clock.now
            self.waiting = [other for other in self.waiting if other is not ticket]

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def finish(self, data):
        ticket = data.draw(st.sampled_from(self.working))
        self.working.remove(ticket)
        self.desk.finish(ticket)
        (self.over if ticket in self.gone else self.unread).append(ticket)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave_the_queue(self, data):
        ticket = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(ticket)
        assert self.desk.leave(ticket)

    @precondition(lambda self: self.working + self.unread)
    @rule(data=st.data())
    def leave(self, data):
        ticket = data.draw(st.sampled_from(self.working + self.unread))
        assert not self.desk.leave(ticket)
        self.gone.append(ticket)
        if ticket in self.unread:
            self.unread.remove(ticket)
            self.over.append(ticket)

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0]))
    def time_passes(self, seconds):
        self.clock.now += seconds

    @invariant()
    def bounded_and_nothing_lost_or_twice(self):
        assert self.desk.waiting == (
            len(self.waiting),
            sum(ticket.samples for ticket in self.waiting),
        )
        inside = self.waiting + self.working + self.unread
        assert sum(ticket.samples for ticket in inside) <= self.ROOM
        assert len(set(self.told)) == len(self.told)
        assert not set(self.told) & set(self.working + self.over)


TestTraffic = _Traffic.TestCase


def test_the_quantum_that_is_served_with_is_the_one_that_is_stated():
    turns = Turns()
    for client in "ab":
        for _ in range(200):
            turns.add(Ticket(client, 1, LATER))
    order = [turns.pop().client for _ in range(64)]
    assert order == ["a"] * QUANTUM + ["b"] * QUANTUM + ["a"] * QUANTUM + ["b"] * QUANTUM
