"""fp16 with gradient scaling: it trains, rests where gradients overflow, and resumes exactly."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ktan import pupil
from ktan.checkpoint import checkpoint_state
from ktan.data import Normalisation
from ktan.errors import UserError
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


def taught(
    folder: Path | None = None, options: TrainerOptions = OPTIONS, **arguments: object
) -> tuple[nn.Module, Objective]:
    network, bound = student(), objective()
    train(
        network, bound, data(), options, normalise=NORMALISE, folder=folder, progress=False,
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


def cut(folder: Path, options: TrainerOptions) -> None:
    """Trains up to the first checkpoint."""

    class Stop(Exception):
        pass

    def stop(_: nn.Module) -> float:
        if (folder / CHECKPOINT).exists():
            raise Stop
        return 0.0

    with pytest.raises(Stop):
        taught(folder, options, validate=stop)
    assert checkpoint_state(folder / CHECKPOINT)["step"] == 4


def same(ones: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = weights(*taught())
    cut(tmp_path, OPTIONS)
    assert same(whole, weights(*taught(tmp_path, resume=True)))


@pytest.mark.parametrize(
    ("begun", "there", "recorded"),
    [
        ("float32", "fp16", True),
        ("float32", "fp16", False),
        ("fp16", "float32", True),
        ("fp16", "float32", False),
        ("bf16", "fp16", True),
    ],
)
def test_a_run_goes_on_in_the_precision_it_began_in(
    begun: str, there: str, recorded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = replace(OPTIONS, precision="auto")
    monkeypatch.setattr(pupil, "resolve_precision", lambda *_: begun)
    whole = weights(*taught(options=auto))
    cut(tmp_path, auto)
    if not recorded:
        path = tmp_path / CHECKPOINT
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = checkpoint_state(path)
        assert state.pop("precision") == begun
        safetensors.torch.save_file(tensors, path, {"state": json.dumps(state)})
    # A device on which `auto` is something else.
    monkeypatch.setattr(pupil, "resolve_precision", lambda *_: there)
    assert same(whole, weights(*taught(tmp_path, auto, resume=True)))


def test_a_student_that_is_refused_keeps_no_hooks(tmp_path: Path) -> None:
    cut(tmp_path, OPTIONS)
    network = student()
    bound = Objective([Term("map", "student", 1.0, lambda v, _: v.logits.sum())], {}, paths=("0",))
    with pytest.raises(UserError, match="does not fit this run"):
        train(
            network, bound, data(), OPTIONS, normalise=NORMALISE, folder=tmp_path, resume=True,
            progress=False,
        )  # fmt: skip
    assert not any(module._forward_hooks for module in network.modules())


def test_where_gradients_overflow_the_student_rests_and_its_scale_falls(tmp_path: Path) -> None:
    network = student()
    before = weights(network)
    bound = objective(factor=1e36)
    train(network, bound, data(), OPTIONS, normalise=NORMALISE, folder=tmp_path, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(network), strict=True))
    scales = checkpoint_state(tmp_path / CHECKPOINT)["scales"]
    assert scales["student"]["scale"] == 2.0**16 / 2**8
    assert scales["discriminator"]["scale"] == 2.0**16
