"""The soak's own arithmetic: it must see an unfair service, growth, and books that do not agree."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from scipy.stats import linregress

from benchmarks.soaking.books import Books, Settled, balance
from benchmarks.soaking.figures import fairness, percentiles, slope, slope_error
from benchmarks.soaking.heap import in_use, told
from benchmarks.soaking.journal import Asked, Journal, read, unfinished

TAPS, PRICE, COUNT = 2, 100, 8
HELD = Settled(digest="d", new=TAPS * COUNT, receipt="r", charge=PRICE * COUNT)


def journal(path: Path, *events: str) -> dict[str, Asked]:
    """One request, `a`, and what became of it."""
    kept = Journal(path)
    kept.ask(1.0, "a", 0, COUNT)
    for event in events:
        match event.split(":"):
            case ["send"]:
                kept.send("a")
            case ["got", digest, charged]:
                kept.got("a", digest, int(charged), b"r")
            case ["no", status]:
                kept.no("a", status, 0.5)
            case ["cut"]:
                kept.cut("a")
    return read(path)


def found(asked: dict[str, Asked], settled: dict[str, Settled]) -> Books:
    books = Books()
    balance(books, "client-0", asked, settled, TAPS, PRICE)
    return books


def test_fairness_is_jain_s_index() -> None:
    assert fairness([5.0, 5.0, 5.0]) == 1.0
    assert fairness([9.0, 0.0, 0.0]) == pytest.approx(1 / 3)
    # Jain, Chiu & Hawe 1984: k of n alike and the rest nothing give k/n.
    assert fairness([2.0] * 7 + [0.0] * 3) == pytest.approx(0.7)
    assert fairness([]) == fairness([0.0, 0.0]) == 1.0


def test_a_slope_is_that_of_the_line() -> None:
    times = [100.0, 110.0, 120.0, 130.0]
    assert slope(times, [3 + 0.25 * t for t in times]) == pytest.approx(0.25)
    assert slope(times, [7.0] * 4) == pytest.approx(0.0)
    assert slope([5.0], [1.0]) == slope([], []) == 0.0


def test_a_slope_has_the_error_that_scipy_gives_it() -> None:
    times, values = [0.0, 10.0, 20.0, 30.0, 40.0], [1.0, 4.0, 2.0, 7.0, 3.0]
    assert slope_error(times, values) == pytest.approx(linregress(times, values).stderr)
    assert slope_error(times[:2], values[:2]) == 0.0


def test_percentiles() -> None:
    assert percentiles(list(map(float, range(1001)))) == {
        "p50": 500.0, "p90": 900.0, "p99": 990.0, "p99.9": 999.0,
    }  # fmt: skip
    assert percentiles([]) == {}


def test_a_journal_tells_who_died_under_a_call(tmp_path: Path) -> None:
    asked = journal(tmp_path / "j", "send", "no:UNAVAILABLE OVERLOADED", "send")["a"]
    assert (asked.died, asked.in_doubt, asked.unhinted) == (1, True, 0)
    assert dict(asked.refused) == {"UNAVAILABLE OVERLOADED": 1}
    (tmp_path / "j").unlink()
    asked = journal(tmp_path / "j", "send", "no:UNAVAILABLE OVERLOADED")["a"]
    assert (asked.died, asked.in_doubt) == (0, False)


def test_who_comes_back_goes_on_where_the_journal_ends(tmp_path: Path) -> None:
    path = tmp_path / "j"
    assert unfinished(path) == ([], 0)
    kept = Journal(path)
    for place, request_id in enumerate("abcd"):
        kept.ask(1.0, request_id, COUNT * place, COUNT)
        kept.send(request_id)
    kept.got("a", "d", COUNT, b'{"a":"receipt"}')
    kept.no("b", "UNAVAILABLE OVERLOADED", 0.5)
    kept.end("c", "left")
    assert unfinished(path) == ([("b", COUNT, COUNT), ("d", 3 * COUNT, COUNT)], 4 * COUNT)


def test_books_that_agree(tmp_path: Path) -> None:
    again = journal(tmp_path / "j", "send", "send", f"got:d:{COUNT}", "send", "got:d:0")
    assert found(again, {"a": HELD}).broken == []
    refused = journal(tmp_path / "k", "send", "no:UNAVAILABLE OVERLOADED")
    assert found(refused, {}).broken == []


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (["send"], "died"),
        (["send", "cut"], "cancelled or broke its connection"),
        (["send", "no:DEADLINE_EXCEEDED"], "deadline passed"),
        (["send", "no:UNAVAILABLE"], "connection lost"),
    ],
)
def test_settled_and_never_heard(tmp_path: Path, last: list[str], why: str) -> None:
    books = found(journal(tmp_path / "j", *last), {"a": HELD})
    assert (dict(books.unheard), books.broken) == ({why: 1}, [])


@pytest.mark.parametrize(
    ("events", "held", "fault"),
    [
        (["send", f"got:d:{COUNT}"], None, "an answer without an entry"),
        (["send", f"got:x:{COUNT}"], HELD, "an answer that is not the stored one"),
        (["send", f"got:d:{COUNT}", "send", f"got:d:{COUNT}"], HELD, "charged twice"),
        (["send", "got:d:0"], HELD, "a charge that no answer told of"),
        (["send", "no:UNAVAILABLE OVERLOADED"], HELD, "refused each time"),
        (
            ["send", f"got:d:{COUNT}"],
            dataclasses.replace(HELD, charge=2 * HELD.charge),
            "not the samples' price",
        ),
        (
            ["send", f"got:d:{COUNT}"],
            dataclasses.replace(HELD, receipt="other"),
            "a receipt that is not the stored one",
        ),
    ],
)
def test_books_that_do_not_agree(
    tmp_path: Path, events: list[str], held: Settled | None, fault: str
) -> None:
    settled = {} if held is None else {"a": held}
    (said,) = found(journal(tmp_path / "j", *events), settled).broken
    assert fault in said
    assert "client-0 a" in said


def test_an_entry_that_nobody_asked_for() -> None:
    assert len(found({}, {"b": HELD}).broken) == 1


def test_what_is_freed_is_not_in_use() -> None:
    before = in_use()
    if before is None:
        pytest.skip("this C library does not tell")
    held = [bytes(1000) for _ in range(20_000)]
    during = in_use()
    assert during is not None
    assert during[0] - before[0] > 15e6
    assert during[1] - before[1] > 19_000
    del held
    after = in_use()
    assert after is not None
    assert abs(after[0] - before[0]) < 5e6


def test_a_service_that_tells_nothing_of_its_heap_has_none(tmp_path: Path) -> None:
    assert told(tmp_path / "heap") == (0, 0)
    (tmp_path / "heap").write_text("12 34")
    assert told(tmp_path / "heap") == (12, 34)
