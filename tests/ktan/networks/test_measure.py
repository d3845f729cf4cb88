"""Sizes against counts by hand; speed by a clock that the test winds."""

import time

import pytest
import torch
from torch import Tensor

from ktan.networks import NetworkSpec, build, measure
from ktan.networks.measure import Size, race, ready, size_of, speed_up

CPU = torch.device("cpu")


def test_sizes_of_a_pair() -> None:
    teacher = size_of(NetworkSpec("resnet32", (3, 32, 32), 10))
    student = size_of(NetworkSpec("mlp-small", (4,), 3, {"hidden": [5]}))
    assert student == Size(parameters=4 * 5 + 5 + 5 * 3 + 3, multiply_adds=4 * 5 + 5 * 3)
    assert teacher.parameters == 466_906
    assert teacher.compression(student) == pytest.approx(466_906 / 43)
    assert teacher.saving(student) == pytest.approx(teacher.multiply_adds / 35)
    assert student.times(3) == Size(3 * 43, 3 * 35)
    assert student.times(3).compression(student) == 3


class Clock:
    """Seconds that pass only when something is computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.slowness = 1.0
        self.passes: list[str] = []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def forward(self, name: str, seconds: float) -> measure.Forward:
        def run(samples: Tensor) -> Tensor:
            assert samples.shape == (20, 1, 8, 8)
            self.now += seconds * self.slowness
            self.passes.append(name)
            # Every pass a little slower: a machine that warms up.
            self.slowness *= 1.001
            return samples

        return run


def test_speed_is_a_ratio_of_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    found = speed_up(
        clock.forward("teacher", 0.2), clock.forward("student", 0.1), (1, 8, 8),
        device=CPU, batch=20, turns=5,
    )  # fmt: skip
    assert found.ratio == pytest.approx(2, rel=0.02)
    assert found.teacher == pytest.approx(100, rel=0.05)
    assert found.student == pytest.approx(200, rel=0.05)
    assert (found.batch, found.turns) == (20, 5)
    # One pass is long enough here, so that they take turns pass by pass.
    assert clock.passes[-10:] == ["teacher", "student"] * 5


def test_short_passes_are_timed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    found = speed_up(
        clock.forward("teacher", 0.03), clock.forward("student", 0.001), (1, 8, 8),
        device=CPU, batch=20, turns=3,
    )  # fmt: skip
    # Slower by a thousandth each pass, for about 50 passes a turn.
    assert found.ratio == pytest.approx(30, rel=0.2)
    assert clock.passes[-100:].count("student") > 90


def test_a_race_gives_single_passes_and_passes_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    seconds = iter(range(10**6))

    def jumpy(samples: Tensor) -> Tensor:
        # Every tenth pass takes ten times as long.
        clock.now += 0.1 if next(seconds) % 10 else 1.0
        return samples

    slow, fast, uneven = race(
        [clock.forward("slow", 0.2), clock.forward("fast", 0.1), jumpy],
        torch.zeros(20, 1, 8, 8),
        turns=20,
    )
    assert slow.ratio == 1
    assert fast.ratio == pytest.approx(2, rel=0.02)
    assert slow.throughput == pytest.approx(100, rel=0.15)
    assert fast.median == pytest.approx(0.1, rel=0.15)
    # Three single passes a turn, of which one in ten is slow: more than one in twenty.
    assert uneven.median == pytest.approx(0.1)
    assert uneven.p95 == pytest.approx(1.0)


def test_real_networks_are_measured_without_gradients() -> None:
    large, small = (
        ready(build(NetworkSpec("cnn-small", (1, 14, 14), 3, {"width": width})), CPU)
        for width in (64, 8)
    )
    grads: list[bool] = []
    large.register_forward_hook(lambda _m, _i, out: grads.append(out.requires_grad))
    found = speed_up(large, small, (1, 14, 14), device=CPU, precision="float32", batch=5, turns=1)
    assert min(found.teacher, found.student, found.ratio) > 0
    assert not any(grads)
    assert not any(network.training for network in (large, small))
