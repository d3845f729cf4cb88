from itertools import pairwise

import pytest
import torch
from torch import nn

from ktan.errors import UserError
from ktan.optimisers import learning_rate, make_optimiser
from ktan.precision import autocast, half_type, resolve_device, resolve_precision


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


def test_a_fused_step_is_sgds_own_also_for_what_had_no_gradient_at_first() -> None:
    start = [torch.arange(4.0), torch.ones(3)]
    ours, own = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    fused = make_optimiser(ours, "sgd", 0.1)
    plain = torch.optim.SGD(own, lr=0.2, momentum=0.9, nesterov=True, weight_decay=0.1)
    for group in fused.param_groups:
        group["lr"] = 0.2
    for step in range(4):
        for one, other in zip(ours, own, strict=True):
            one.grad = other.grad = None
            if step > 1 or len(one) == 4:
                one.grad, other.grad = one.detach() * 0.3, other.detach() * 0.3
        fused.step()
        plain.step()
    for one, other in zip(ours, own, strict=True):
        torch.testing.assert_close(one, other)


def test_auto_is_never_fp16_where_nothing_is_scaled() -> None:
    cpu = torch.device("cpu")
    assert half_type(cpu, "auto") in (None, torch.bfloat16)
    assert half_type(cpu, "fp16") == torch.float16
    assert resolve_precision(cpu, "auto") in ("float32", "bf16")
    assert resolve_precision(cpu, "fp16") == "fp16"
