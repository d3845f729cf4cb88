"""The compiled forward pass sees what the plain one sees."""

import pytest
import torch
from torch import nn

from ktan.errors import UserError
from ktan.student_pass import CompiledPass
from ktan.tap_reader import read_taps

PATHS = ("0", "2.input")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def test_logits_features_and_gradients_are_those_of_the_plain_pass() -> None:
    samples = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    one, other = network(), network()
    compiled = CompiledPass(one, PATHS, graphs=False, backend="eager")
    for _ in range(2):
        (logits, features), (own, seen) = compiled(samples), read_taps(other, PATHS)(samples)
        assert torch.equal(logits, own)
        assert list(features) == list(seen) == list(PATHS)
        for found, expected in ((features, seen),):
            assert all(torch.equal(found[path], expected[path]) for path in PATHS)
        (logits.sum() + features["0"].square().sum()).backward()
        (own.sum() + seen["0"].square().sum()).backward()
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    compiled.close()
    assert not any(module._forward_hooks for module in one.modules())


def test_many_passes_of_a_process_are_all_compiled() -> None:
    torch.compiler.reset()
    made = torch._dynamo.utils.counters["stats"]
    before, passes = made["unique_graphs"], torch._dynamo.config.recompile_limit + 2
    for _ in range(passes):
        compiled = CompiledPass(network(), PATHS, graphs=False, backend="eager")
        compiled(torch.ones(2, 4))
        compiled.close()
    assert made["unique_graphs"] - before == passes


def test_without_a_compiler_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"no-such-compiler is not here; .*leave --compile away"):
        CompiledPass(network(), PATHS, graphs=False)
