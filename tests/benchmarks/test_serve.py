"""The serving benchmark's own arithmetic: neighbours are compared, and a miss is called one."""

from __future__ import annotations

import pytest

from benchmarks.serving.figures import Found, added_ms, beside, summary, table
from benchmarks.serving.load import throughput


def speed(images: float) -> Found:
    return {"images_per_second": images}


def turn(bulk: float, single: float, added: float) -> Found:
    latencies = {"p50_ms": 10.0, "p95_ms": 20.0, "p99_ms": 30.0}
    return {
        "bulk": speed(1234.0) | latencies, "single": speed(567.0) | latencies,
        "ratios": {"bulk": bulk, "single": single}, "added_ms": added,
    }  # fmt: skip


def measured(turns: list[Found], rounds: list[Found] | None = None) -> Found:
    setting = {"batch": 128, "channels_last": True, "callers": 2, "torch_threads": 1}
    best = speed(3000.0) | {"setting": setting}
    return {"bare_best": best, "turns": turns, **summary(turns, rounds or [])}


def test_a_load_is_compared_with_what_stood_beside_it() -> None:
    assert beside(speed(300), speed(500), speed(700)) == 0.5
    # A machine that halves its speed, for both, changes no ratio.
    assert beside(speed(150), speed(250), speed(350)) == 0.5


def test_added_latency_is_beyond_one_bare_image() -> None:
    # 400 and 600 images/s: 2 ms an image.
    assert added_ms({"p50_ms": 6.5}, speed(400), speed(600)) == pytest.approx(4.5)


def test_medians_are_judged_and_every_turn_is_kept() -> None:
    found = measured([turn(0.9, 0.5, 3.0), turn(0.2, 0.4, 9.0), turn(1.0, 0.6, 4.0)])
    assert found["medians"] == {"bulk": 0.9, "single": 0.5, "added_ms": 4.0}
    assert found["each"]["bulk"] == [0.9, 0.2, 1.0]


def test_the_table_says_which_goals_are_missed() -> None:
    first, bulk, single, added = table(
        "resnet20", "bf16", measured([turn(0.9, 0.5, 5.5), turn(0.92, 0.5, 5.7)])
    ).splitlines()
    assert first.startswith("resnet20 in bf16: bare 3,000 images/s")
    assert "0.91 (goal 0.95: missed) [0.90 0.92] of bare; 1,234 images/s, 10/20/30 ms" in bulk
    assert "0.50 (goal 0.45: reached)" in single
    # A latency is to be below its goal.
    assert "5.60 (goal 5: missed)" in added


def test_the_peer_is_in_the_table_without_a_goal() -> None:
    one = {"litserve_of_bare": 0.4, "ours_of_litserve": 1.25}
    lines = table(
        "ensemble", "float32", measured([turn(1, 1, 1)], [{"bulk": one, "single": one}])
    ).splitlines()
    assert [line.split() for line in lines[4:]] == [
        ["litserve_bulk", "0.40", "[0.40]", "of", "bare"],
        ["bulk_of_litserve", "1.25", "[1.25]", "of", "LitServe"],
        ["litserve_single", "0.40", "[0.40]", "of", "bare"],
        ["single_of_litserve", "1.25", "[1.25]", "of", "LitServe"],
    ]


def test_a_request_across_the_edge_counts_by_its_part() -> None:
    done = [(0.0, 4.0), (4.0, 8.0), (8.0, 12.0), (20.0, 24.0)]
    # Half of the first, the second, a quarter of the third, in seven seconds.
    assert throughput(done, 2.0, 9.0) == pytest.approx(1.75 / 7)


def test_a_steady_load_has_its_rate_in_any_window() -> None:
    done = [(k / 4, k / 4 + 1.0) for k in range(40)]
    assert throughput(done, 2.1, 6.3) == pytest.approx(4.0)
