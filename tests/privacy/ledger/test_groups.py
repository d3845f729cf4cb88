"""Many requests, one transaction: each is decided as if it had come alone, in its turn."""

import sqlite3
import threading
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Connection, Row

from privacy.budget import spent_epsilon
from privacy.errors import BudgetExhausted, LedgerFault, LedgerUnreachable, RequestIdReused
from privacy.ledger import Settlement, lookup, writer
from privacy.ledger.chain import entry_hash
from privacy.ledger.group import Group
from privacy.ledger.job import Job
from privacy.ledger.witness import read_heads
from privacy.receipts import verify
from tests.privacy.ledger.gathering import PATIENCE, Gathering, until


@pytest.fixture
def ask(ledger, asker):
    """asker.settle of the ledger, to be called later."""
    return lambda *names, **options: partial(asker.settle, ledger, *names, **options)


@pytest.fixture
def gathering(ledger, monkeypatch):
    return Gathering(ledger, monkeypatch)


def test_who_comes_during_a_commit_shares_the_next_one(ledger, place, gathering, ask) -> None:
    futures = gathering.run(*(ask(f"r{n}", f"s{n}", client=f"c{n}") for n in range(6)))
    receipts = [future.result().receipt for future in futures]
    assert gathering.heads == [1, 6]
    assert [receipt.entry for receipt in receipts] == [1, 2, 3, 4, 5, 6]
    assert [receipt.spent for receipt in receipts] == [100, 200, 300, 400, 500, 600]
    assert len({receipt.signature for receipt in receipts[1:]}) == 1
    # ε of all that was spent when the receipts were made.
    spent = [spent_epsilon(ledger.plan, receipts[place].spent) for place in (0, 5)]
    assert [receipt.epsilon_spent for receipt in receipts] == [spent[0], *[spent[1]] * 5]
    for receipt in receipts:
        verify(receipt, ledger.public_key)
        assert ledger.find(receipt.client, receipt.request_id, b"c" * 32).receipt == receipt
    entries = list(ledger.entries())
    for before, entry in pairwise(entries):
        assert entry.previous == before.hash() == entry_hash(before.canonical())
    assert read_heads(place.witness.read_bytes())[0] == ledger.head()
    with ledger._engine.connect() as connection:
        assert lookup.last_groups(connection) == [(2, 6)]
    ledger.close()
    with place.open() as again:
        assert again.rolled_back is None
        assert again.budget().spent == 600


def test_a_request_id_twice_in_a_group(ledger, gathering, ask, asker) -> None:
    def otherwise():
        return ledger.settle("alice", "r1", b"other content", [asker.pending(ledger, "z")], "v1")

    _, one, same, other, next_one = gathering.run(
        ask("r0", "s0"),
        ask("r1", "a", payload=b"drawn first"),
        ask("r1", "a", payload=b"drawn again"),
        otherwise,
        ask("r2", "b"),
    )
    assert (one.result().repeated, same.result().repeated) == (False, True)
    assert same.result().payloads == one.result().payloads == [b"drawn first"]
    assert same.result().receipt == one.result().receipt
    with pytest.raises(RequestIdReused, match="r1"):
        other.result()
    assert next_one.result().receipt.entry == 3
    assert ledger.budget().spent == 300
    assert ledger.stored([asker.pending(ledger, "z").key]) == {}


def test_a_sample_in_two_requests_of_a_group_is_drawn_and_charged_once(
    ledger, gathering, ask
) -> None:
    _, one, two = gathering.run(
        ask("r0", "s0"),
        ask("r1", "a", "b", payload=b"by one"),
        ask("r2", "b", "c", client="bob", payload=b"by two"),
    )
    assert one.result().payloads == [b"by one", b"by one"]
    assert two.result().payloads == [b"by one", b"by two"]
    assert (one.result().charged, two.result().charged) == (200, 100)
    assert (one.result().new, two.result().new) == (2, 1)
    assert ledger.budget("bob").client_spent == 100


def test_what_was_settled_before_is_found_in_the_middle_of_a_group(
    ledger, ask, monkeypatch
) -> None:
    before = ask("r1", "a", "b")()
    gathering = Gathering(ledger, monkeypatch)
    _, new, same_request, same_sample, hinted = gathering.run(
        ask("r9", "z"),
        ask("r2", "c"),
        ask("r1", "a", "b", payload=b"drawn anew"),
        ask("r3", "d", "a", payload=b"drawn anew"),
        ask("r4", "b", "e", payload=b"drawn anew", stored=True),
    )
    assert gathering.heads == [2, 5]  # A repeated request makes no entry.
    assert same_request.result().repeated
    assert same_request.result().receipt == before.receipt
    assert same_sample.result().payloads == [b"drawn anew", b"noisy a"]
    assert hinted.result().payloads == [b"noisy b", b"drawn anew"]
    assert [future.result().charged for future in (new, same_sample, hinted)] == [100, 100, 100]


@pytest.mark.parametrize("stored", [False, True])
def test_the_hint_that_an_answer_is_stored_decides_nothing(ledger, ask, stored: bool) -> None:
    assert ask("r1", "a", stored=stored)().charged == 100
    again = ask("r2", "a", payload=b"drawn anew", stored=stored)()
    assert (again.charged, again.payloads) == (0, [b"noisy a"])


def test_the_budget_ends_in_the_middle_of_a_group(small_ledger, asker, monkeypatch) -> None:
    with small_ledger(units=350) as ledger:
        ask = partial(partial, asker.settle, ledger)
        futures = Gathering(ledger, monkeypatch).run(
            ask("r0", "s0"),
            ask("r1", "a", "b"),
            ask("r2", "c"),
            ask("r3", "d", charge=50),
            ask("r4", "e", charge=1),
            ask("r5", "a", "d"),
        )
        for number, left in ((2, 50), (4, 0)):
            refusal = futures[number].exception()
            assert isinstance(refusal, BudgetExhausted)
            assert refusal.left == left
            assert ledger.find("alice", f"r{number}", asker.content) is None
        assert [futures[number].result().charged for number in (0, 1, 3, 5)] == [100, 200, 50, 0]
        assert [entry.request_id for entry in ledger.entries()] == ["", "r0", "r1", "r3", "r5"]
        assert ledger.stored([asker.pending(ledger, name).key for name in "ce"]) == {}
        assert ledger.budget().left == 0


def test_a_cap_is_reached_in_the_middle_of_a_group(small_ledger, asker, monkeypatch) -> None:
    with small_ledger(units=10_000, default_cap=250) as ledger:
        ask = partial(partial, asker.settle, ledger)
        futures = Gathering(ledger, monkeypatch).run(
            ask("r0", "s0"),
            ask("r1", "a"),
            ask("r2", "b"),
            ask("r2", "b", client="bob"),
            partial(ledger.set_cap, "alice", 300),
            ask("r3", "c"),
            ask("r4", "d"),
        )
        refused = [isinstance(future.exception(), BudgetExhausted) for future in futures]
        assert refused == [False, False, True, False, False, False, True]
        assert "cap of client 'alice'" in str(futures[2].exception())
        assert ledger.budget("alice").client_spent == 300
        assert ledger.budget("bob").client_spent == 100
    # What the tables say agrees with the replayed chain, or it would not open.


def test_training_and_answers_share_a_group(place, training_plan, asker, monkeypatch) -> None:
    first, second, third = training_plan.training
    with place.create(training_plan) as ledger:
        charge = partial(partial, ledger.charge_training)
        futures = Gathering(ledger, monkeypatch).run(
            partial(asker.settle, ledger, "r0", "s0"),
            charge(first, "teacher-1", "ab" * 32),
            charge(first, "teacher-1", "ab" * 32),
            charge(second, "teacher-2", "ab" * 32),
            charge(first, "teacher-3", "ab" * 32),
            charge(first, "teacher-1", "cd" * 32),
            partial(asker.settle, ledger, "r1", "a"),
        )
        assert futures[1].result() == futures[2].result()
        assert isinstance(futures[4].exception(), BudgetExhausted)
        assert isinstance(futures[5].exception(), RequestIdReused)
        assert futures[6].result().receipt.entry == 4
        assert ledger.reserved_training() == (third,)


def test_a_group_has_a_largest_size(ledger, gathering, ask, monkeypatch) -> None:
    monkeypatch.setattr(writer, "_LARGEST_GROUP", 2)
    futures = gathering.run(*(ask(f"r{n}", f"s{n}") for n in range(6)))
    assert [future.result().receipt.entry for future in futures] == [1, 2, 3, 4, 5, 6]
    assert gathering.heads == [1, 3, 5, 6]


def test_a_group_holds_a_limited_number_of_answers(ledger, gathering, ask, monkeypatch) -> None:
    monkeypatch.setattr(writer, "_MOST_ANSWERS", 3)
    samples = ("a",), ("b", "c"), ("d",), ("e", "f", "g", "h"), ("i",)
    futures = gathering.run(
        ask("r0", "s0"), *(ask(f"r{n}", *names) for n, names in enumerate(samples, start=1))
    )
    assert [future.result().new for future in futures] == [1, 1, 2, 1, 4, 1]
    assert gathering.heads == [1, 3, 4, 5, 6]


# Failures


def unreachable(monkeypatch, *which: int) -> list[int]:
    """Has these of the transactions from now on find no database; tells how many were begun."""
    lock_state, begun = lookup.lock_state, []

    def lock(connection: Connection) -> Row[Any]:
        begun.append(len(begun) + 1)
        if begun[-1] in which:
            raise LedgerUnreachable("the ledger's database does not answer, nothing was charged")
        return lock_state(connection)

    monkeypatch.setattr(lookup, "lock_state", lock)
    return begun


def test_of_several_transactions_each_tells_its_own_requests(ledger, asker, monkeypatch) -> None:
    """The database goes away after the first, and is back for the third."""
    monkeypatch.setattr(writer, "_LARGEST_GROUP", 3)
    requests = [
        ledger.request("alice", f"r{n}", asker.content, [asker.pending(ledger, f"s{n}")], "v1")
        for n in range(8)
    ]
    unreachable(monkeypatch, 2)
    outcomes = ledger.settle_all(requests)
    assert [type(outcome) for outcome in outcomes] == [
        *[Settlement] * 3, *[LedgerUnreachable] * 3, *[Settlement] * 2,
    ]  # fmt: skip
    assert ledger.budget().spent == 500
    again = ledger.settle_all(requests)
    assert [outcome.repeated for outcome in again] == [True] * 3 + [False] * 3 + [True] * 2
    assert ledger.budget().spent == 800


def test_whoever_waits_learns_of_an_unreachable_database_by_one_attempt(
    ledger, gathering, ask, monkeypatch
) -> None:
    attempts: list[list[int]] = []
    futures = gathering.run(
        *(ask(f"r{n}", f"s{n}") for n in range(6)),
        meanwhile=lambda: attempts.append(unreachable(monkeypatch, *range(1, 9))),
    )
    assert futures[0].result().charged == 100
    assert all(isinstance(future.exception(), LedgerUnreachable) for future in futures[1:])
    assert attempts == [[1]]
    assert ledger.budget().spent == 100


def reopened(place, ledger):
    ledger.close()
    return place.open()


def test_a_failed_commit_fails_the_whole_group_and_everybody_behind_it(
    ledger, place, gathering, ask, asker, monkeypatch
) -> None:
    monkeypatch.setattr(writer, "_LARGEST_GROUP", 3)
    dialect = ledger._writer._writing.dialect

    def broken(connection: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    futures = gathering.run(
        *(ask(f"r{n}", f"s{n}") for n in range(6)),
        meanwhile=lambda: setattr(dialect, "do_commit", broken),
    )
    assert futures[0].result().charged == 100
    for future in futures[1:]:
        assert isinstance(future.exception(), LedgerFault)
        assert "disk I/O error" in str(future.exception())
    with reopened(place, ledger) as again:
        assert again.rolled_back is None
        assert again.budget().spent == 100
        assert asker.settle(again, "r1", "s1").charged == 100


def test_a_commit_that_failed_after_all_answers_the_whole_group(
    ledger, place, gathering, ask
) -> None:
    dialect = ledger._writer._writing.dialect
    commit = dialect.do_commit

    def broken(connection: object) -> None:
        commit(connection)
        raise ledger._engine.dialect.dbapi.OperationalError("the connection was lost")

    futures = gathering.run(
        *(ask(f"r{n}", f"s{n}") for n in range(4)),
        meanwhile=lambda: setattr(dialect, "do_commit", broken),
    )
    assert [future.result().payloads for future in futures] == [
        [f"noisy s{n}".encode()] for n in range(4)
    ]
    assert read_heads(place.witness.read_bytes())[0].entry == 4


def test_an_error_that_is_no_refusal_fails_the_group(
    ledger, place, gathering, ask, asker, monkeypatch
) -> None:
    settle = Group.settle

    def faulty(group: Group, request: object) -> object:
        if request.request_id == "r2":
            raise ZeroDivisionError("a mistake of ours")
        return settle(group, request)

    monkeypatch.setattr(Group, "settle", faulty)
    futures = gathering.run(*(ask(f"r{n}", f"s{n}") for n in range(4)))
    assert futures[0].result().charged == 100
    assert all(isinstance(future.exception(), LedgerFault) for future in futures[1:])
    with reopened(place, ledger) as again:
        assert again.budget().spent == 100


def test_an_interrupted_leader_leaves_nobody_waiting(
    ledger, place, gathering, ask, monkeypatch
) -> None:
    write = Group.write

    def interrupted(group: Group) -> object:
        write(group)
        if gathering.heads:
            raise KeyboardInterrupt
        return write

    def arm() -> None:
        monkeypatch.setattr(Group, "write", interrupted)

    futures = gathering.run(*(ask(f"r{n}", f"s{n}") for n in range(4)), meanwhile=arm)
    assert futures[0].result().charged == 100
    assert isinstance(futures[1].exception(), KeyboardInterrupt)
    assert all(isinstance(future.exception(), LedgerFault) for future in futures[2:])
    with reopened(place, ledger) as again:
        assert again.budget().spent == 100


def test_a_caller_interrupted_while_it_waits_is_as_if_it_had_never_come(
    ledger, gathering, ask, monkeypatch
) -> None:
    wait, leave = Job.wait, threading.Event()

    def interrupted(job: Job) -> None:
        if job.name == ("alice", "r1"):
            assert leave.wait(PATIENCE)
            raise KeyboardInterrupt
        wait(job)

    def interrupt() -> None:
        leave.set()
        until(lambda: len(ledger._writer._waiting) == 2)

    with monkeypatch.context() as patch:
        patch.setattr(Job, "wait", interrupted)
        futures = gathering.run(*(ask(f"r{n}", f"s{n}") for n in range(4)), meanwhile=interrupt)
    assert isinstance(futures[1].exception(), KeyboardInterrupt)
    assert [futures[number].result().receipt.entry for number in (0, 2, 3)] == [1, 2, 3]
    assert ask("r1", "s1")().charged == 100


def test_a_caller_interrupted_as_it_is_made_leader_passes_the_lead_on(
    ledger, gathering, ask, monkeypatch
) -> None:
    wait = Job.wait

    def interrupted(job: Job) -> None:
        wait(job)
        if job.name == ("alice", "r1"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Job, "wait", interrupted)
        futures = gathering.run(*(ask(f"r{n}", f"s{n}") for n in range(4)))
    assert isinstance(futures[1].exception(), KeyboardInterrupt)
    assert [futures[number].result().receipt.entry for number in (0, 2, 3)] == [1, 2, 3]
    assert ask("r1", "s1")().charged == 100


def test_closing_waits_for_the_commit_and_refuses_whoever_is_behind_it(
    ledger, place, gathering, ask
) -> None:
    closing = threading.Thread(target=ledger.close)

    def close() -> None:
        closing.start()
        until(lambda: ledger._writer._fault is not None)

    first, second = gathering.run(ask("r0", "s0"), ask("r1", "s1"), meanwhile=close)
    closing.join(PATIENCE)
    assert first.result().charged == 100
    assert "it was closed" in str(second.exception())
    with place.open() as again:
        assert again.rolled_back is None
        assert again.budget().spent == 100
