"""Layers of private teachers: locality, k never changes, exact resume; and such teachers served."""

import dataclasses
import json
import shutil
import uuid

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ktan.data import Augment, Normalisation
from ktan.errors import UserError
from ktan.methods import Batch, Binding
from ktan.methods.ktan import KTAN
from ktan.networks import NetworkSpec, build, stages_of
from ktan.optimisers import learning_rate
from ktan.pairing import pair_taps
from ktan.taps import parse_taps
from ktan.teacher import AnswerTap
from ktan.teachers import TeacherModels
from ktan.teachers.stack import new_states
from privacy.budget import open_plan
from privacy.ledger import Ledger
from privacy.noise import DiscreteGaussian
from teacher_server.answering import Answerer
from teacher_server.menu import build_menu
from teacher_server.public_teacher import PublicTeacher
from teacher_server.trained_teacher import TrainedTeacher
from teacher_server.training import TeacherOptions, tsl, verify_folder
from teacher_server.training.recipe import EnsembleRecipe
from teacher_server.training.shard_batches import ShardBatches
from tests.teacher_server.training.conftest import FakeLedger
from tests.teacher_server.training.test_train import FAST, NOISY, make, pairwise_cosine

CPU = torch.device("cpu")
K, SIZE = 6, 20
SPEC = NetworkSpec("cnn-small", (1, 16, 16), 3, {"channels": (4, 6), "width": 8})
RECIPE = tsl.layer_recipe(
    EnsembleRecipe(
        spec=SPEC,
        normalise=Normalisation((100.0,), (60.0,)),
        steps=1,
        batch=1,
        learning_rate=1.0,
        optimiser="sgd",
        weight_decay=0.1,
        augment=Augment("affine"),
        precision="float32",
        seed=3,
        stack=3,
    ),
    steps=6,
)
TAPS = parse_taps(["probabilities", "tsl=features.1:5x3x3", "tsl=features.3:4"])
TEACHERS = new_states(SPEC, range(K))


def records(seed=0):
    generator = torch.Generator().manual_seed(seed)
    samples = 100 + 60 * torch.randn(K * SIZE, *SPEC.input_shape, generator=generator)
    labels = torch.randint(0, 3, (K * SIZE,), generator=generator)
    return samples, labels, [np.arange(i * SIZE, (i + 1) * SIZE) for i in range(K)]


def trained(samples, labels, shards, teachers=TEACHERS, recipe=RECIPE, **more):
    return tsl.train_layers(teachers, TAPS, samples, labels, shards, recipe, device=CPU, **more)


def same_but(one, other, changed):
    kept = [i for i in range(K) if i != changed]
    return all(torch.equal(one[name][kept], other[name][kept]) for name in one)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("poison", [float("nan"), 1e30, "labels", "teacher", "size"])
def test_one_shard_reaches_its_own_layer_only(poison, precision):
    recipe = dataclasses.replace(RECIPE, precision=precision)
    samples, labels, shards = records()
    before = trained(samples, labels, shards, recipe=recipe)
    mine, teachers = torch.from_numpy(shards[4]), TEACHERS
    if poison == "labels":
        labels[mine] = 0
    elif poison == "teacher":
        teachers = {name: value.clone() for name, value in TEACHERS.items()}
        for value in teachers.values():
            value[4] = float("nan")
    elif poison == "size":
        shards[4] = shards[4][:3]
    else:
        samples[mine] = poison
    after = trained(samples, labels, shards, teachers, recipe)
    assert same_but(before, after, changed=4)
    assert not all(torch.equal(before[name][4], after[name][4]) for name in before)
    assert {name: len(value) for name, value in after.items()} == dict.fromkeys(before, K)


def test_an_empty_shard_has_no_layer():
    samples, labels, shards = records()
    before = trained(samples, labels, shards)
    shards[1] = np.array([], dtype=np.int64)
    after = trained(samples, labels, shards)
    assert same_but(before, after, changed=1)
    assert all(value[1].isnan().all() for value in after.values())


def test_each_layer_is_what_a_plain_loop_over_its_shard_makes():
    recipe = dataclasses.replace(RECIPE, augment=Augment("none"))
    samples, labels, shards = records()
    start = {name: value[0] for name, value in tsl.fresh_layers(TAPS, recipe, 1).items()}
    found = trained(samples, labels, shards, recipe=recipe, start=start)
    for teacher in (0, 5):
        network = build(SPEC)
        network.load_state_dict({name: value[teacher] for name, value in TEACHERS.items()})
        layer = nn.Sequential(nn.Conv2d(6, 4, 3, padding=1, bias=False), nn.GroupNorm(1, 4))
        names = ("convolution", "scale", "shift")
        with torch.no_grad():
            for parameter, name in zip(layer.parameters(), names, strict=True):
                parameter.copy_(start[f"tsl:tsl.features.3:{name}"])
        classifier = nn.Linear(4, 3)
        nn.init.zeros_(classifier.weight)
        nn.init.zeros_(classifier.bias)
        optimiser = torch.optim.Adam([*layer.parameters(), *classifier.parameters()])
        batches = ShardBatches(shards[teacher], recipe.batch, recipe.seed, teacher)
        for step in range(recipe.steps):
            places = torch.from_numpy(batches(step))
            rate = learning_rate(recipe.learning_rate, step, recipe.steps)
            optimiser.param_groups[0]["lr"] = rate
            with torch.no_grad():
                feature = network.features[:4](recipe.normalise(samples[places]))
            optimiser.zero_grad()
            pooled = layer(feature).relu().mean(dim=(2, 3))
            F.cross_entropy(classifier(pooled), labels[places]).backward()
            optimiser.step()
        for parameter, name in zip(layer.parameters(), names, strict=True):
            mine = found[f"tsl:tsl.features.3:{name}"][teacher]
            torch.testing.assert_close(mine, parameter.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("stop_after", [1, 9, 17])
def test_an_interrupted_training_goes_on_to_the_same_layers(tmp_path, stop_after):
    samples, labels, shards = records()
    whole = trained(samples, labels, shards)
    asked = iter(range(10**6))
    with pytest.raises(KeyboardInterrupt):
        trained(
            samples, labels, shards, folder=tmp_path, stopping=lambda: next(asked) >= stop_after
        )
    steps = []
    resumed = trained(samples, labels, shards, folder=tmp_path, on_step=steps.append)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert sum(steps) < 2 * K * RECIPE.steps


def interrupted(folder, samples, labels, shards, teachers=TEACHERS):
    """Stopped in the last steps of the first layer."""
    asked = iter(range(10**6))
    with pytest.raises(KeyboardInterrupt):
        trained(samples, labels, shards, teachers, folder=folder, stopping=lambda: next(asked) >= 9)


def test_layers_follow_from_the_teachers_they_are_given(tmp_path):
    """A layer that was begun behind other weights, of an earlier draw of noise say, is none."""
    samples, labels, shards = records()
    other = new_states(SPEC, range(K, 2 * K))
    interrupted(tmp_path, samples, labels, shards)
    resumed = trained(samples, labels, shards, other, folder=tmp_path)
    anew = trained(samples, labels, shards, other)
    assert all(torch.equal(anew[name], resumed[name]) for name in anew)


def test_a_teacher_of_nothing_but_nan_starts_no_layer_anew(tmp_path):
    samples, labels, shards = records()
    broken = {name: value.clone() for name, value in TEACHERS.items()}
    for value in broken.values():
        value[[2, 4]] = float("nan")  # one in each stack
    interrupted(tmp_path, samples, labels, shards, broken)
    steps = []
    trained(samples, labels, shards, broken, folder=tmp_path, on_step=steps.append)
    assert sum(steps) < 2 * K * RECIPE.steps


ENSEMBLE = dataclasses.replace(
    FAST,
    teachers=4,
    tsl_steps=60,
    network_set=("channels=[4,8]", "width=16"),
    taps=("probabilities", "tsl=features.3:5"),
)
DP_SGD = dataclasses.replace(NOISY, tsl_steps=60, taps=("probabilities", "tsl=features.3:5x4x4"))


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    """Mode → card, folder and ledger of a teacher with a layer."""
    teachers = {}
    for options in (ENSEMBLE, DP_SGD):
        ledger, folder = FakeLedger(), tmp_path_factory.mktemp(options.mode) / "teacher"
        teachers[options.mode] = (make(world, ledger, folder, options), folder, ledger)
    return teachers


def served(card, folder, tmp_path, samples):
    """Answers of a service with a real ledger, without the wire; and what they were charged."""
    plan = open_plan(8.0, 1e-5)
    with Ledger.create(
        tmp_path / "ledger", dataset_id="fake", plan=plan, witness=tmp_path / "else" / "head.json"
    ) as ledger:
        menu = build_menu(PublicTeacher.of_card(card.to_json()), plan.answer_units, 50, {})
        teacher = TrainedTeacher(TeacherModels.load(folder, "cpu"))
        answerer = Answerer(teacher, card.version, menu, ledger, DiscreteGaussian())
        answer = answerer.answer("anna", str(uuid.uuid4()), samples.numpy())
        spent = ledger.budget(None).spent
    taps = {
        tap.name: AnswerTap(tap.name, tap.release.kind, tap.shape, tap.release.noise_sd)
        for tap in menu
    }
    return taps, {name: torch.tensor(value) for name, value in answer.taps.items()}, spent


def learn(taps, answers, samples):
    """Steps of KTAN's student on such answers: its losses before and after."""
    spec = NetworkSpec("resnet8", (1, 28, 28), 10, {"widths": [2, 3, 4, 5]})
    torch.manual_seed(0)
    student = build(spec)
    stages = stages_of(spec)
    paths = pair_taps(taps, student, spec.input_shape, stages)
    binding = Binding(student, spec.input_shape, 10, taps, paths, answers, stages)
    objective = KTAN().build(binding)
    inputs = samples.float() / 255
    labels = torch.full((len(samples),), -1)
    batch = Batch(inputs[:0], labels[:0], inputs, answers, labels)
    moving = [*student.parameters(), *objective.learnables("student")]
    optimiser = torch.optim.Adam(moving, lr=1e-2)
    losses = []
    for _ in range(25):
        loss = objective(student, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_an_ensemble_serves_the_mean_over_its_layers_maps(world, made, tmp_path):
    dataset, parts = world
    card, folder, _ = made["ensemble"]
    tap = {entry.tap.name: entry for entry in card.taps}["tsl"]
    assert (tap.tap.shape, tap.tap.text) == ((5,), "tsl=features.3:5")
    assert tap.bound > 0
    assert "60 public labels" in tap.bound_source
    samples = dataset.samples[torch.from_numpy(parts.unlabelled[:40])]
    models = TeacherModels.load(folder, "cpu")
    said = models.answers(samples)["tsl"]
    assert said.shape == (4, 40, 5)
    # Aligned: k layers, each of its own shard, speak of the same channels.
    assert pairwise_cosine(said) > 0.5
    taps, answers, spent = served(card, folder, tmp_path, samples)
    assert (taps["tsl"].kind, answers["tsl"].shape) == ("tsl", (40, 5))
    assert taps["tsl"].noise_sd > 0
    assert spent > 0
    error = (answers["tsl"] - models.mean_answers(samples)["tsl"]) / taps["tsl"].noise_sd
    # 200 values of unit variance: six sigma are 0.6.
    assert abs(float(error.square().mean()) - 1) < 0.8
    losses = learn(taps, answers, samples)
    assert losses[-1] < losses[0]


def test_a_dp_sgd_teacher_serves_its_layers_map_and_charges_nothing(world, made, tmp_path):
    dataset, parts = world
    card, folder, ledger = made["dp-sgd"]
    tap = {entry.tap.name: entry for entry in card.taps}["tsl"]
    assert (tap.tap.shape, tap.bound) == ((5, 4, 4), 0.0)
    assert "public samples and the teacher's own answers" in tap.bound_source
    assert ledger.charged == [card.version]
    samples = dataset.samples[torch.from_numpy(parts.unlabelled[:20])]
    taps, answers, spent = served(card, folder, tmp_path, samples)
    assert spent == 0
    assert taps["tsl"].noise_sd == 0
    own = TeacherModels.load(folder, "cpu").answers(samples)["tsl"][0]
    torch.testing.assert_close(answers["tsl"], own)
    assert float(own.min()) == 0.0 < float(own.max())
    losses = learn(taps, answers, samples)
    assert losses[-1] < losses[0]


def test_a_layer_of_a_dp_sgd_teacher_never_sees_a_private_record(
    world, ledger, tmp_path, monkeypatch
):
    dataset, parts = world
    seen = []
    original = tsl.train_layers

    def spy(weights, taps, samples, labels, shards, recipe, **more):
        seen.append((samples, labels, shards))
        return original(weights, taps, samples, labels, shards, recipe, **more)

    monkeypatch.setattr(tsl, "train_layers", spy)
    make(world, ledger, tmp_path / "teacher", DP_SGD)
    ((samples, labels, shards),) = seen
    public = torch.from_numpy(np.concatenate([parts.unlabelled, parts.labelled]))
    assert torch.equal(samples, dataset.samples[public])
    assert sorted(np.concatenate(shards)) == list(range(len(public)))
    answers = TeacherModels.load(tmp_path / "teacher", "cpu").answers(samples)
    assert torch.equal(labels, answers["probabilities"][0].argmax(dim=1))


def test_the_card_tells_nothing_of_private_records(world, made, ledger, tmp_path):
    dataset, parts = world
    private = torch.from_numpy(parts.private)
    samples = dataset.samples.clone()
    samples[private] = 255 - samples[private]
    other = dataclasses.replace(dataset, samples=samples)
    make((other, parts), ledger, tmp_path / "other", ENSEMBLE)
    cards = [
        json.loads((folder / "card.json").read_text())
        for folder in (made["ensemble"][1], tmp_path / "other")
    ]
    assert cards[0].pop("version") != cards[1].pop("version")
    assert cards[0] == cards[1]


def test_the_seal_covers_the_layers(world, made, tmp_path):
    _, original, ledger = made["ensemble"]
    folder, mac = tmp_path / "teacher", ledger.custody().mac
    shutil.copytree(original, folder)
    verify_folder(folder, mac)
    path = folder / "tsl.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
    with pytest.raises(UserError, match="changed"):
        verify_folder(folder, mac)
    path.unlink()
    with pytest.raises(UserError, match="changed"):
        verify_folder(folder, mac)
    with pytest.raises(UserError, match="no trained layer"):
        TeacherModels.load(folder, "cpu").answers(world[0].samples[:2])
    path.write_bytes(content)
    verify_folder(folder, mac)


@pytest.mark.parametrize(
    ("options", "wrong", "says"),
    [
        (ENSEMBLE, {"taps": ("tsl=features.3:5x4x4",)}, "tsl=features.3:5"),
        (ENSEMBLE, {"taps": ("tsl=features:5",)}, "made of maps"),
        (ENSEMBLE, {"tsl_steps": 0}, "--tsl-steps"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    world, ledger, tmp_path, options, wrong, says
):
    with pytest.raises(UserError, match=says):
        make(world, ledger, tmp_path / "teacher", dataclasses.replace(options, **wrong))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [ENSEMBLE, DP_SGD], ids=["ensemble", "dp-sgd"])
def test_without_public_samples_there_is_no_layer(world, ledger, tmp_path, options):
    dataset, parts = world
    none = parts.unlabelled[:0]
    apart = dataclasses.replace(parts, labelled=none, unlabelled=none)
    with pytest.raises(UserError, match="--unlabelled"):
        make((dataset, apart), ledger, tmp_path / "teacher", options)


def test_the_default_is_no_layer():
    assert not any(tap.startswith("tsl") for tap in TeacherOptions().taps)
