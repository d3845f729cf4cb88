from pathlib import Path

import pytest
import torch
from torch import nn

from ktan.checkpoint import (
    checkpoint_state,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)
from ktan.errors import UserError
from ktan.optimisers import make_optimiser

CPU = torch.device("cpu")


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_weights_and_notes_come_back(tmp_path: Path) -> None:
    save_weights(network(0), tmp_path / "w.safetensors", {"promise": "ε = 4"})
    other = network(1)
    assert load_weights(other, tmp_path / "w.safetensors") == {"promise": "ε = 4"}
    for one, two in zip(network(0).state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_weights(network(0), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="another network"):
        load_weights(nn.Linear(3, 4), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="no file"):
        load_weights(nn.Linear(3, 4), tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("name", ["adam", "sgd", "adversary"])
def test_optimiser_and_random_state_go_on_where_they_were(tmp_path: Path, name: str) -> None:
    def steps(model: nn.Module, optimiser: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            for group in optimiser.param_groups:
                group["lr"] = 0.01
            optimiser.zero_grad()
            model(torch.randn(8, 3)).square().mean().backward()
            optimiser.step()

    path = tmp_path / "c.safetensors"
    model = network(0)
    optimiser = make_optimiser(model.parameters(), name)
    steps(model, optimiser, 5)
    save_checkpoint(path, {"m": model}, {"student": optimiser}, {"step": 5}, CPU)
    steps(model, optimiser, 5)

    other = network(1)
    fresh = make_optimiser(other.parameters(), name)
    assert checkpoint_state(path) == {"step": 5}
    assert load_checkpoint(path, {"m": other}, {"student": fresh}, CPU) == {"step": 5}
    steps(other, fresh, 5)
    for one, two in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_a_failed_write_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"m": network(0)}, {}, {"step": 1}, CPU)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("ktan.durable.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, {"m": network(1)}, {}, {"step": 2}, CPU)
    assert checkpoint_state(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]
