from itertools import pairwise

import pytest
import torch
from torch import nn

from ktan.errors import UserError
from ktan.optimisers import learning_rate, make_optimiser
from ktan.precision import autocast, resolve_device


def test_schedule_warms_up_peaks_and_ends_near_zero() -> None:
    rates = [learning_rate(0.1, step, 200) for step in range(200)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[9] == rates[10] == pytest.approx(0.1)
    assert rates[105] == pytest.approx(0.05)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert 0 < rates[-1] < 1e-4


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_runs_still_move(steps: int) -> None:
    assert learning_rate(0.1, 0, steps) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["adam", "sgd", "adversary"])
def test_weight_decay_and_rate_reach_the_optimiser(name: str) -> None:
    optimiser = make_optimiser([nn.Parameter(torch.ones(2))], name, 0.25)
    (group,) = optimiser.param_groups
    assert group["weight_decay"] == 0.25
    if name == "adversary":
        assert group["betas"][0] == 0.5


def test_devices_and_precision() -> None:
    cpu = resolve_device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(UserError, match="choose auto, cpu or cuda"):
        resolve_device("abacus")
    product = torch.ones(2, 2)
    with autocast(cpu, "float32"):
        assert (product @ product).dtype == torch.float32
    with autocast(cpu, "bf16"):
        assert (product @ product).dtype == torch.bfloat16
