"""Many callers at once: one draw per key, one entry per request, no unit too much."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from privacy.errors import BudgetExhausted, LedgerInUse


def test_threads_that_settle_the_same_samples_share_one_draw_each(ledger, asker) -> None:
    names = [f"s{number}" for number in range(12)]
    start = threading.Barrier(8)

    def ask(worker: int) -> list[tuple[str, bytes]]:
        start.wait()
        got = []
        for turn in range(6):
            mine = [names[(worker + turn + step) % len(names)] for step in range(4)]
            settled = asker.settle(
                ledger, f"w{worker}t{turn}", *mine, payload=f"drawn by {worker}/{turn}".encode()
            )
            got += zip(mine, settled.payloads, strict=True)
        return got

    with ThreadPoolExecutor(8) as pool:
        results = [pair for worker in pool.map(ask, range(8)) for pair in worker]
    payloads: dict[str, set[bytes]] = {}
    for name, payload in results:
        payloads.setdefault(name, set()).add(payload)
    assert all(len(found) == 1 for found in payloads.values())
    assert ledger.budget().spent == 100 * len(names)
    entries = list(ledger.entries())
    assert len(entries) == 1 + 8 * 6
    assert sum(entry.details.get("new", 0) for entry in entries) == len(names)


def test_one_request_sent_eight_times_at_once_is_settled_once(ledger, asker) -> None:
    start = threading.Barrier(8)

    def ask(worker: int) -> tuple[tuple[bytes, ...], bytes, bool]:
        start.wait()
        settled = asker.settle(ledger, "r1", "a", "b", payload=f"draw {worker}".encode())
        return tuple(settled.payloads), settled.receipt.signature, settled.repeated

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(ask, range(8)))
    assert len({result[:2] for result in results}) == 1
    assert Counter(result[2] for result in results) == {False: 1, True: 7}
    assert ledger.budget().spent == 200
    assert ledger.head().entry == 1


def test_racing_debits_never_pass_the_budget(small_ledger, asker) -> None:
    with small_ledger(units=1050, default_cap=400) as ledger:
        start = threading.Barrier(8)

        def ask(worker: int) -> int:
            start.wait()
            spent = 0
            for turn in range(5):
                try:
                    spent += asker.settle(
                        ledger, f"{worker}/{turn}", f"{worker}/{turn}", client=f"c{worker % 4}"
                    ).charged
                except BudgetExhausted:
                    continue
            return spent

        with ThreadPoolExecutor(8) as pool:
            spent = list(pool.map(ask, range(8)))
        assert sum(spent) == ledger.budget().spent == 1000
        assert all(ledger.budget(f"c{client}").client_spent <= 400 for client in range(4))


def test_readers_see_a_whole_ledger_while_it_is_written(ledger, asker) -> None:
    done = threading.Event()

    def read() -> int:
        reads = 0
        while not done.is_set():
            state = ledger.budget("alice")
            assert state.spent + state.left == state.budget
            assert state.client_spent == state.spent
            numbers = [entry.number for entry in ledger.entries()]
            assert numbers == list(range(len(numbers)))
            reads += 1
        return reads

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for number in range(40):
            asker.settle(ledger, f"r{number}", f"s{number}")
        done.set()
        assert all(reader.result() > 0 for reader in readers)


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_a_second_writer_is_refused_and_a_reader_is_not(ledger, place, asker) -> None:
    with pytest.raises(LedgerInUse, match="one writes"):
        place.open()
    with place.open(read_only=True) as reader:
        asker.settle(ledger, "r1", "a")
        assert reader.budget().spent == 100
    ledger.close()
    with place.open() as again:
        assert again.head().entry == 1
