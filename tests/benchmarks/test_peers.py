"""The loop that the public implementations are trained in: our trainer's recipe, and resumable."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.peers import lockstep
from benchmarks.peers.lockstep import Recipe, Trainee
from benchmarks.peers.peer import Pair, Peer
from benchmarks.peers.public_code import PublicCode
from ktan.data import DataSource, SplitRecipe
from ktan.errors import UserError
from ktan.methods.binding import Binding
from ktan.methods.local import Local
from ktan.networks import NetworkSpec, build
from ktan.trainer import TrainerOptions, train
from ktan.training_data import TrainingData
from student_client.public_data import PublicData

RECIPE = Recipe(
    network="resnet8", epochs=2, batch=16, learning_rate=0.1, weight_decay=5e-4,
    augment="crop-flip", precision="float32", initialisation=0.3, seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> PublicData:
    source = DataSource(dataset="fake", data_root=tmp_path_factory.mktemp("data"), size=200)
    return PublicData.load(source, SplitRecipe(labelled=48, unlabelled=1, test=20))


def taught(public: PublicData, out: Path, recipe: Recipe = RECIPE) -> dict[str, object]:
    spec = NetworkSpec("resnet8", public.input_shape, len(public.classes))
    torch.manual_seed(99)
    results = lockstep.run(
        ["alone"], recipe, public, build(spec), spec, public.normalisation, PublicCode(out), out,
        torch.device("cpu"),
    )  # fmt: skip
    (result,) = results
    return result


def weights(public: PublicData, folder: Path) -> dict[str, Tensor]:
    spec = NetworkSpec("resnet8", public.input_shape, len(public.classes))
    trainee = Trainee("alone", Peer(Pair.of(spec, spec)), build(spec), RECIPE, 6, folder)
    trainee.resume()
    return dict(trainee.student.state_dict())


def test_student_alone_is_the_one_that_our_trainer_makes(
    public: PublicData, tmp_path: Path
) -> None:
    taught(public, tmp_path)
    spec = NetworkSpec("resnet8", public.input_shape, len(public.classes))
    torch.manual_seed(RECIPE.seed)
    student: nn.Module = build(spec)
    data = TrainingData(public.labelled[:0], public.labels[:0], public.labelled, {}, public.labels)
    options = TrainerOptions(
        epochs=2, answered_batch=16, optimiser="sgd", learning_rate=0.1, weight_decay=5e-4,
        augment="crop-flip", precision="float32", device="cpu", seed=RECIPE.seed,
    )  # fmt: skip
    objective = Local().build(Binding(student, spec.input_shape, spec.classes))
    train(student, objective, data, options, normalise=public.normalisation, progress=False)
    theirs = weights(public, tmp_path / "alone-3")
    for name, value in student.state_dict().items():
        torch.testing.assert_close(theirs[name], value, msg=name)


def test_stopped_run_goes_on_to_the_same_weights(
    public: PublicData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught(public, tmp_path / "whole")
    step = Trainee.step

    def stop(self: Trainee, number: int, *rest: object) -> None:
        if number == 4:
            raise KeyboardInterrupt
        step(self, number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainee, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        taught(public, tmp_path / "cut")
    monkeypatch.undo()
    result = taught(public, tmp_path / "cut")
    assert result["steps"] == 6
    whole, cut = (weights(public, tmp_path / name / "alone-3") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_folder_of_another_recipe_is_refused(public: PublicData, tmp_path: Path) -> None:
    taught(public, tmp_path)
    with pytest.raises(UserError, match="another recipe"):
        taught(public, tmp_path, replace(RECIPE, learning_rate=0.2))


def test_missing_clone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="HobbitLong/RepDistiller"):
        PublicCode(tmp_path).take("RepDistiller", "distiller_zoo/KD.py", "DistillKL")
