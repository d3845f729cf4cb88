"""What waits is bounded, handed out in turns, and dropped when nobody waits for it any more."""

import itertools
import threading

import pytest

from protos import Reason
from teacher_server.desk import Desk, Ticket
from teacher_server.errors import Unavailable
from tests.teacher_server.turned_clock import Clock

PATIENCE = 120.0
LATER = 1e9


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def new_desk(clock):
    """A desk on that clock whose hints are not spread."""
    return lambda room, **options: Desk(room, clock, chance=lambda: 0.5, **options)


def _admit(desk, *sizes, client="anna", deadline=LATER):
    tickets = [Ticket(client, samples, deadline) for samples in sizes]
    for ticket in tickets:
        desk.admit(ticket)
    return tickets


def _refused(desk, ticket):
    with pytest.raises(Unavailable) as caught:
        desk.admit(ticket)
    return caught.value


def _over(desk, ticket):
    """It is answered, and its answer is read."""
    desk.finish(ticket)
    desk.leave(ticket)


def _sizes(tickets):
    return [ticket.samples for ticket in tickets]


def test_a_batch_is_as_many_as_fit_and_the_next_one_keeps_its_turn(new_desk):
    desk = new_desk(1000)
    _admit(desk, 30, 30, 30, 5)
    assert desk.waiting == (4, 95)
    assert _sizes(desk.take(64)) == [30, 30]
    assert _sizes(desk.take(64)) == [30, 5]
    assert desk.waiting == (0, 0)


def test_a_request_larger_than_a_batch_goes_by_itself(new_desk):
    desk = new_desk(1000)
    _admit(desk, 1, 100, 1)
    assert [_sizes(desk.take(64)) for _ in range(3)] == [[1], [100], [1]]


def test_one_client_alone_leaves_a_part_to_a_newcomer(new_desk):
    desk = new_desk(100)
    _admit(desk, *[10] * 7)
    refused = _refused(desk, Ticket("anna", 10, LATER))
    assert refused.reason is Reason.OVERLOADED
    assert "of this client" in str(refused)
    _admit(desk, *[5] * 4, client="bert")
    assert "of this client" in str(_refused(desk, Ticket("bert", 5, LATER)))
    _admit(desk, 10, client="carl")
    assert "too many samples are waiting" in str(_refused(desk, Ticket("dora", 1, LATER)))


@pytest.mark.parametrize("clients", [1, 2, 3, 5])
def test_however_greedy_they_are_the_stated_part_is_left(new_desk, clients):
    desk = new_desk(1600)
    refused = set()
    for name in itertools.cycle(map(str, range(clients))):
        try:
            desk.admit(Ticket(name, 1, LATER))
        except Unavailable:
            refused.add(name)
            if len(refused) == clients:
                break
    left = 1600 - desk.waiting[1]
    assert left == pytest.approx(1600 / (3 * clients + 1), abs=clients)
    _admit(desk, left, client="newcomer")
    assert desk.waiting[1] == 1600


def test_what_is_taken_holds_its_room_until_it_leaves(new_desk):
    desk = new_desk(10, share=1.0)
    _admit(desk, 6, 4)
    (first, second) = desk.take(10)
    _refused(desk, Ticket("bert", 1, LATER))
    _over(desk, second)
    _admit(desk, 4, client="bert")
    _over(desk, first)
    _admit(desk, 6, client="carl")


def test_whoever_holds_nothing_may_bring_what_fits(new_desk):
    _admit(new_desk(10), 10)


def test_a_bulk_client_and_small_ones_do_not_starve_each_other(new_desk):
    desk = new_desk(10_000, share=1.0)
    _admit(desk, *[64] * 40, client="bulk")
    for small in range(8):
        _admit(desk, *[1] * 50, client=f"small-{small}")
    served = dict.fromkeys(["bulk", *(f"small-{number}" for number in range(8))], 0)
    for _ in range(8):
        for ticket in desk.take(64):
            served[ticket.client] += ticket.samples
    assert served["bulk"] == 64
    assert all(served[f"small-{number}"] >= 32 for number in range(8))


def test_expired_and_left_requests_are_dropped_before_any_work(new_desk, clock):
    desk, told = new_desk(20, share=1.0), []
    late = Ticket("anna", 5, clock.now + 1, on_dropped=lambda: told.append("late"))
    gone = Ticket("anna", 5, LATER, on_dropped=lambda: told.append("gone"))
    kept = Ticket("anna", 5, LATER, on_dropped=lambda: told.append("kept"))
    for ticket in (late, gone, kept):
        desk.admit(ticket)
    clock.now += 1
    assert desk.leave(gone)
    assert desk.take(64) == [kept]
    # Who left needs no telling.
    assert told == ["late"]
    assert not desk.leave(late)
    _admit(desk, 15, client="bert")


def test_one_that_cannot_be_told_costs_the_others_nothing(new_desk, clock):
    def broken():
        raise RuntimeError("the loop is closed")

    desk = new_desk(20, share=1.0)
    desk.admit(Ticket("anna", 5, clock.now + 1, on_dropped=broken))
    (kept,) = _admit(desk, 5)
    clock.now += 2
    assert desk.take(64) == [kept]


def test_leaving_while_it_waits_frees_the_room_at_once(new_desk):
    desk = new_desk(10, share=1.0)
    first, second = _admit(desk, 6, 4)
    assert desk.leave(first)
    assert not desk.leave(first)
    (other,) = _admit(desk, 6, client="bert")
    taken = desk.take(64)
    assert set(taken) == {second, other}
    # One that was taken ends as it would.
    assert not desk.leave(second)
    _refused(desk, Ticket("carl", 4, LATER))
    desk.finish(second)
    _admit(desk, 4, client="carl")


def test_an_answer_that_is_not_read_holds_its_room(new_desk):
    desk = new_desk(10, share=1.0)
    (unread,) = _admit(desk, 10)
    desk.take(10)
    desk.finish(unread)
    _refused(desk, Ticket("bert", 1, LATER))
    desk.leave(unread)
    assert not desk.leave(unread)
    _admit(desk, 10, client="bert")
    _refused(desk, Ticket("carl", 1, LATER))


def test_several_are_finished_in_one_go(new_desk):
    desk = new_desk(10, share=1.0)
    left, unread = _admit(desk, 6, 4)
    desk.take(10)
    desk.leave(left)
    _refused(desk, Ticket("bert", 1, LATER))
    desk.finish(left, unread)
    # The one is gone; the other's answer is still held.
    _admit(desk, 6, client="bert")
    _refused(desk, Ticket("carl", 1, LATER))
    desk.leave(unread)
    _admit(desk, 4, client="carl")


def test_nobody_waits_for_the_company_of_who_does_not_read(new_desk):
    desk = new_desk(100, share=1.0)
    desk.finish(_busy(desk))
    tickets = _admit(desk, 1, 1)
    thread, results = _in_thread(lambda: desk.take(3, wait=PATIENCE * 10))
    thread.join(PATIENCE)
    assert results == [tickets]


def _pace(desk, clock, samples_a_second):
    """Lets the desk measure: backlog for two seconds, then everything leaves."""
    tickets = _admit(desk, *[10] * 25)
    for _ in tickets:
        (ticket,) = desk.take(10)
        _over(desk, ticket)
        clock.now += 10 / samples_a_second
    assert desk.waiting == (0, 0)


def test_what_cannot_be_answered_in_time_is_refused(new_desk, clock):
    desk = new_desk(10_000)
    _pace(desk, clock, 100)
    _admit(desk, *[50] * 10)
    hurried = Ticket("bert", 50, clock.now + 1.0)
    assert "before the deadline" in str(_refused(desk, hurried))
    desk.admit(Ticket("bert", 50, clock.now + 1.2))
    # A single sample has its turn long before the backlog is through.
    desk.admit(Ticket("carl", 1, clock.now + 1.0))


def test_without_a_backlog_the_pace_is_not_known_and_nobody_is_refused(new_desk, clock):
    desk = new_desk(10_000)
    for _ in range(100):
        (ticket,) = _admit(desk, 1)
        assert desk.take(64) == [ticket]
        _over(desk, ticket)
        clock.now += 1.0
    _admit(desk, *[50] * 20)
    desk.admit(Ticket("bert", 50, clock.now + 0.01))


def test_where_nothing_waits_nobody_is_refused_for_a_measured_rate(new_desk, clock):
    desk = new_desk(10_000)
    _pace(desk, clock, 10)
    desk.admit(Ticket("bert", 500, clock.now + 1.0))


def _stalled(desk, clock):
    """Three seconds at 100 samples a second, a quarter of an hour at none; something waits."""
    tickets = _admit(desk, *[10] * 40)
    for number in range(30):
        desk.take(10)
        clock.now += 900.0 if number == 28 else 0.1
    for ticket in tickets[:30]:
        _over(desk, ticket)


def test_one_long_stall_counts_as_a_short_one(new_desk, clock):
    desk = new_desk(10_000)
    _stalled(desk, clock)
    # 300 samples in 3 s and 5 more; counted in full they would have taken 900.
    assert "before the deadline" in str(_refused(desk, Ticket("bert", 100, clock.now + 1.0)))
    desk.admit(Ticket("bert", 100, clock.now + 10.0))


def test_what_was_measured_is_forgotten_after_an_idle_minute(new_desk, clock):
    desk = new_desk(10_000)
    _pace(desk, clock, 10)
    _admit(desk, 50)
    assert "before the deadline" in str(_refused(desk, Ticket("bert", 50, clock.now + 1.0)))
    desk.take(64)
    clock.now += 61.0
    _admit(desk, 50)
    desk.admit(Ticket("bert", 50, clock.now + 1.0))


def test_the_hint_grows_with_the_backlog(new_desk, clock):
    desk = new_desk(2000, share=1.0)
    _pace(desk, clock, 100)
    hints = []
    for backlog in (5, 100, 800, 1000):
        _admit(desk, backlog, client=f"client {backlog}")
        hints.append(_refused(desk, Ticket("bert", 2001, LATER)).retry_seconds)
    assert hints == pytest.approx([0.1, 1.05, 9.05, 10.0])


def test_the_hint_before_anything_was_measured_and_its_spread(clock):
    hints = []
    for chance in (0.0, 0.5, 1.0):
        desk = Desk(100, clock, share=1.0, chance=lambda chance=chance: chance)
        _admit(desk, 100)
        hints.append(_refused(desk, Ticket("bert", 1, LATER)).retry_seconds)
    assert hints == [0.25, 0.5, 0.75]


def test_the_gate_is_asked_last_with_what_the_client_holds(new_desk):
    asked = []

    def gate(client, samples, held):
        asked.append((client, samples, held))
        if held:
            raise Unavailable(Reason.RATE_LIMITED, "slower", 3.0)

    desk = new_desk(100, gate=gate)
    _refused(desk, Ticket("anna", 101, LATER))
    _admit(desk, 10)
    assert _refused(desk, Ticket("anna", 7, LATER)).reason is Reason.RATE_LIMITED
    assert asked == [("anna", 10, 0), ("anna", 7, 10)]
    assert desk.waiting == (1, 10)


def test_draining_refuses_newcomers_and_hands_out_what_waits(new_desk):
    desk = new_desk(100)
    (first,) = _admit(desk, 5)
    desk.draining = True
    assert _refused(desk, Ticket("bert", 1, LATER)).reason is Reason.DRAINING
    assert desk.take(64, wait=PATIENCE) == [first]
    (second,) = [Ticket("anna", 1, LATER)]
    desk.draining = False
    desk.admit(second)
    desk.close()
    assert _refused(desk, Ticket("bert", 1, LATER)).reason is Reason.DRAINING
    assert desk.take(64) == [second]
    assert desk.take(64) == []


def _in_thread(work):
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    return thread, results


def test_closing_wakes_all_who_wait(new_desk):
    desk = new_desk(100)
    waiting = [_in_thread(lambda: desk.take(64)) for _ in range(3)]
    desk.close()
    for thread, results in waiting:
        thread.join(PATIENCE)
        assert results == [[]]


def _busy(desk):
    """A request of another client, that a worker has."""
    ticket = Ticket("at work", 1, LATER)
    desk.admit(ticket)
    assert desk.take(1) == [ticket]
    return ticket


def test_a_batch_that_is_waited_for_goes_as_soon_as_it_is_full(new_desk):
    desk = new_desk(100, share=1.0)
    _busy(desk)
    thread, results = _in_thread(lambda: desk.take(3, wait=PATIENCE * 10))
    tickets = _admit(desk, 1, 1, 1)
    thread.join(PATIENCE)
    assert results == [tickets]


def test_a_batch_that_does_not_fill_goes_when_time_is_up(new_desk):
    desk = new_desk(100, share=1.0)
    _busy(desk)
    tickets = _admit(desk, 1, 1)
    assert desk.take(3, wait=1e-6) == tickets


def test_an_idle_service_waits_for_nobody(new_desk):
    desk = new_desk(100, share=1.0)
    tickets = _admit(desk, 1, 1)
    thread, results = _in_thread(lambda: desk.take(3, wait=PATIENCE * 10))
    thread.join(PATIENCE)
    assert results == [tickets]


def test_a_batch_waits_no_longer_once_nobody_else_is_answered(new_desk):
    desk = new_desk(100, share=1.0)
    other = _busy(desk)
    tickets = _admit(desk, 1, 1)
    thread, results = _in_thread(lambda: desk.take(3, wait=PATIENCE * 10))
    _over(desk, other)
    thread.join(PATIENCE)
    assert results == [tickets]


def test_no_wakening_is_lost_between_workers(clock):
    """Four workers and four clients: everything is handed out once, and everybody stops."""
    desk, lock, taken = Desk(4000, clock, share=1.0), threading.Lock(), []

    def work():
        while batch := desk.take(8, wait=1e-6):
            with lock:
                taken.extend(batch)
            for ticket in batch:
                _over(desk, ticket)

    def ask(client):
        return _admit(desk, *itertools.islice(itertools.cycle([1, 3, 9]), 200), client=client)

    workers = [_in_thread(work) for _ in range(4)]
    askers = [_in_thread(lambda name=f"client {n}": ask(name)) for n in range(4)]
    for thread, _ in askers:
        thread.join(PATIENCE)
    desk.close()
    for thread, _ in workers:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    admitted = [ticket for _, results in askers for ticket in results[0]]
    assert len(admitted) == 800
    assert {id(ticket) for ticket in taken} == {id(ticket) for ticket in admitted}
    assert len(taken) == 800
