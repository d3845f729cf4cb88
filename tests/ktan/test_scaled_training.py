"""fp16 with gradient scaling: it trains, rests where gradients overflow, and resumes exactly."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ktan.checkpoint import checkpoint_state
from ktan.data import Normalisation
from ktan.methods import Objective, Term
from ktan.trainer import CHECKPOINT, TrainerOptions, train
from ktan.training_data import TrainingData

OPTIONS = TrainerOptions(
    steps=8, labelled_batch=8, precision="fp16", device="cpu", checkpoint_every=4
)
NORMALISE = Normalisation((0.0,) * 4, (1.0,) * 4)


def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def data() -> TrainingData:
    generator = torch.Generator().manual_seed(1)
    return TrainingData(torch.randn(24, 4, generator=generator), torch.arange(24) % 3)


def objective(factor: float = 1.0) -> Objective:
    """Two players: the student, and a judge of its logits."""
    judge = nn.Linear(3, 1)
    nn.init.ones_(judge.weight)

    def own(view, batch) -> Tensor:  # type: ignore[no-untyped-def]
        return factor * nn.functional.cross_entropy(view.logits, batch.labels)

    return Objective(
        [
            Term("own", "student", 1.0, own),
            Term(
                "judge", "discriminator", 1.0, lambda v, _: judge(v.logits.detach()).square().mean()
            ),
        ],
        {"discriminator": {"judge": judge}},
    )


def taught(folder: Path | None = None, **arguments: object) -> tuple[nn.Module, Objective]:
    network, bound = student(), objective()
    train(
        network, bound, data(), OPTIONS, normalise=NORMALISE, folder=folder, progress=False,
        **arguments,  # type: ignore[arg-type]
    )  # fmt: skip
    return network, bound


def weights(*modules: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for module in modules for value in module.parameters()]


def test_it_moves_both_players_and_each_scale_is_in_the_checkpoint(tmp_path: Path) -> None:
    made = taught(tmp_path)
    for before, after in zip(weights(student(), objective()), weights(*made), strict=True):
        assert torch.isfinite(after).all()
        assert not torch.equal(before, after)
    scales = checkpoint_state(tmp_path / CHECKPOINT)["scales"]
    assert scales.keys() == {"discriminator", "student"}
    assert all(scale["scale"] > 0 and scale["_growth_tracker"] == 8 for scale in scales.values())


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(_: nn.Module) -> float:
        if (tmp_path / CHECKPOINT).exists():
            raise Stop
        return 0.0

    whole = weights(*taught())
    with pytest.raises(Stop):
        taught(tmp_path, validate=stop)
    assert checkpoint_state(tmp_path / CHECKPOINT)["step"] == 4
    again = weights(*taught(tmp_path, resume=True))
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))


def test_where_gradients_overflow_the_student_rests_and_its_scale_falls(tmp_path: Path) -> None:
    network = student()
    before = weights(network)
    bound = objective(factor=1e36)
    train(network, bound, data(), OPTIONS, normalise=NORMALISE, folder=tmp_path, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(network), strict=True))
    scales = checkpoint_state(tmp_path / CHECKPOINT)["scales"]
    assert scales["student"]["scale"] == 2.0**16 / 2**8
    assert scales["discriminator"]["scale"] == 2.0**16
