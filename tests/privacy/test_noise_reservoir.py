"""Drawn ahead: each draw once, none kept, nobody waiting for it."""

import gc
import threading
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from privacy.accounting import SIGMA
from privacy.noise import Closeness, RoundedGaussian
from privacy.noise_reservoir import CAPACITY, NoiseReservoir

ALPHA = 1e-8


class Numbers:
    """1, 2, 3, ...: a source whose every draw can be told from every other."""

    name = "numbers"
    closeness = Closeness(0.25, 0.5)

    def __init__(self) -> None:
        self.drawn = 0
        self._lock = threading.Lock()

    def sample(self, count: int) -> npt.NDArray[np.int64]:
        if count < 0:
            raise ValueError("count")
        with self._lock:
            first = self.drawn + 1
            self.drawn += count
        return np.arange(first, first + count, dtype=np.int64)


def eventually(holds: Callable[[], bool]) -> None:
    """Waits until it holds; patient, because the machine may be busy."""
    end = time.monotonic() + 120.0
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def held(reservoir: NoiseReservoir) -> int:
    assert reservoir._stock is not None
    return reservoir._stock._held


def fill(reservoir: NoiseReservoir, capacity: int) -> None:
    """Starts the thread without taking a draw; when this returns it has no draw in its hand."""
    reservoir._own_stock()
    eventually(lambda: held(reservoir) == capacity)


def test_no_draw_is_handed_out_twice_and_none_is_kept() -> None:
    source = Numbers()
    reservoir = NoiseReservoir(source, 500)
    found: list[npt.NDArray[np.int64]] = []

    def customer(seed: int) -> None:
        for turn in range(300):
            count = (seed * 7 + turn * 13) % 90
            part = reservoir.sample(count)
            assert part.shape == (count,)
            assert part.dtype == np.int64
            found.append(part)

    threads = [threading.Thread(target=customer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handed = np.concatenate(found)
    assert handed.min() >= 1
    assert len(np.unique(handed)) == len(handed)
    eventually(lambda: held(reservoir) > 250)
    stock = reservoir._stock
    assert stock is not None
    assert not np.isin(stock._draws[stock._draws != 0], handed).any()
    # All that was drawn was handed out, is held, or is in the thread's hand.
    assert source.drawn <= len(handed) + 2 * 500
    reservoir.renew()


def test_what_was_handed_out_is_overwritten() -> None:
    reservoir = NoiseReservoir(Numbers(), 100)
    fill(reservoir, 100)
    taken = reservoir.sample(30)
    stock = reservoir._stock
    assert stock is not None
    # More than half is left, so that the thread adds nothing.
    assert np.count_nonzero(stock._draws) == stock._held == 70
    assert not np.isin(taken, stock._draws).any()


def test_memory_is_bounded_and_refilled() -> None:
    source = Numbers()
    reservoir = NoiseReservoir(source, 1000)
    fill(reservoir, 1000)
    assert source.drawn == 1000
    taken = reservoir.sample(600)
    assert taken.max() <= 1000
    eventually(lambda: held(reservoir) == 1000)
    # More than it holds: the rest comes straight from the source.
    many = reservoir.sample(5000)
    assert len(np.unique(np.concatenate([taken, many]))) == 5600
    assert reservoir._stock is not None
    assert reservoir._stock._draws.nbytes == 8000


def test_a_request_never_waits_for_the_thread() -> None:
    """The thread's own draw hangs; requests are served all the same."""
    hang, entered = threading.Event(), threading.Event()

    class Slow(Numbers):
        def sample(self, count: int) -> npt.NDArray[np.int64]:
            if threading.current_thread() is not threading.main_thread():
                entered.set()
                hang.wait(240.0)
            return super().sample(count)

    reservoir = NoiseReservoir(Slow(), 100)
    try:
        reservoir.sample(1)
        assert entered.wait(240.0)
        assert [reservoir.sample(10).size for _ in range(20)] == [10] * 20
        assert held(reservoir) == 0
    finally:
        hang.set()


def test_its_thread_ends_with_it_and_leaves_nothing() -> None:
    reservoir = NoiseReservoir(Numbers(), 100)
    fill(reservoir, 100)
    stock = reservoir._stock
    assert stock is not None
    del reservoir
    gc.collect()
    eventually(lambda: not stock._draws.any())
    assert stock._held == 0


def test_after_a_fork_it_forgets_what_its_parent_hands_out() -> None:
    source = Numbers()
    reservoir = NoiseReservoir(source, 100)
    fill(reservoir, 100)
    stock, before = reservoir._stock, source.drawn
    assert stock is not None
    reservoir.renew()
    assert not stock._draws.any()
    assert reservoir.sample(10).min() > before


def test_a_fork_that_ran_no_handler_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Numbers()
    reservoir = NoiseReservoir(source, 100)
    fill(reservoir, 100)
    before = source.drawn
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert reservoir.sample(10).min() > before


def test_it_is_its_source_to_whoever_counts() -> None:
    source = Numbers()
    reservoir = NoiseReservoir(source)
    assert (reservoir.name, reservoir.closeness) == (source.name, source.closeness)
    assert reservoir.sample(0).shape == (0,)
    with pytest.raises(ValueError, match="count"):
        reservoir.sample(-1)
    with pytest.raises(ValueError, match="capacity"):
        NoiseReservoir(source, 0)


def test_what_comes_out_is_noise() -> None:
    """Kolmogorov-Smirnov over draws of all sizes, from the stock and past it."""
    reservoir = NoiseReservoir(RoundedGaussian())
    sizes = (1, 10, 1000, 20_000, 2 * CAPACITY, 3000, 70_000)
    draws = np.concatenate([reservoir.sample(size) for size in sizes])
    assert len(draws) == sum(sizes)
    assert stats.kstest(draws / SIGMA, "norm").pvalue > ALPHA
    assert stats.chisquare(np.bincount(draws % 256, minlength=256)).pvalue > ALPHA
