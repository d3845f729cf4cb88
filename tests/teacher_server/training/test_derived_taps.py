"""Taps that are derived from features on the teacher's side: menu, bounds, frame, locality."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ktan.errors import UserError
from ktan.networks import NetworkSpec, build
from ktan.taps import parse_tap
from ktan.teachers import TeacherModels, read_alignments, read_tensors
from teacher_server.training import TeacherOptions, train_teacher
from teacher_server.training.reference import is_aligned, measure_reference, needs_public
from tests.teacher_server.training.conftest import FakeLedger

FIRST, LAST = "features.1", "features.3"
DERIVED = (
    "probabilities",
    f"attention={LAST}:4",
    f"attention={FIRST}:3",
    f"products={FIRST},{LAST}:5",
)
OPTIONS = TeacherOptions(
    teachers=4,
    epochs=1,
    reference_steps=20,
    augment="none",
    learning_rate=1e-2,
    alignment_samples=60,
    taps=DERIVED,
    network_set=("channels=[4,8]", "width=8"),
    device="cpu",
)
RICH = dataclasses.replace(
    OPTIONS,
    mode="dp-sgd",
    learning_rate=0.3,
    taps=(f"signs={FIRST}.input", f"products={FIRST},{LAST}", f"attention={LAST}"),
)


def make(world, ledger, out, options):
    data, parts = world
    return train_teacher(data, parts, options, out, ledger.custody(), progress=False)


@pytest.fixture(scope="module")
def ensemble(world, tmp_path_factory):
    """An ensemble with derived taps: its folder and card."""
    out = tmp_path_factory.mktemp("derived") / "teacher"
    return out, make(world, FakeLedger(), out, OPTIONS)


def maps_of(folder, card, number, samples):
    """Both maps of one teacher, by torch alone: float32 [n, 4, 12, 12] and [n, 8, 4, 4]."""
    network = build(card.network)
    weights = read_tensors(folder, "weights.safetensors")
    network.load_state_dict({name: value[number] for name, value in weights.items()})
    with torch.no_grad():
        first = network.features[:2](card.normalisation(samples))
        return first, network.features[2:4](first)


def test_an_ensemble_says_what_each_network_says(world, ensemble):
    folder, card = ensemble
    dataset, parts = world
    samples = dataset.samples[torch.from_numpy(parts.test[:7])]
    answers = TeacherModels.load(folder, "cpu").answers(samples)
    assert {tap.tap.name: tap.tap.shape for tap in card.taps} == {
        "probabilities": (10,),
        "attention": (4, 4),
        f"attention.{FIRST}": (3, 3),
        "products": (5,),
    }
    frame = read_alignments(folder)
    # Attention is a mean over channels: it needs no frame.
    assert set(frame) == {"products"}
    for number in range(4):
        first, last = maps_of(folder, card, number, samples)
        energy = last.square().mean(1)
        expected = energy / energy.flatten(1).norm(dim=1)[:, None, None]
        assert torch.allclose(answers["attention"][number], expected, atol=1e-5)
        pooled = F.avg_pool2d(first.square().mean(1, keepdim=True), 4)[:, 0]
        expected = pooled / pooled.flatten(1).norm(dim=1)[:, None, None]
        assert torch.allclose(answers[f"attention.{FIRST}"][number], expected, atol=1e-5)
        small = F.avg_pool2d(first, 3).flatten(2)
        products = torch.einsum("nap,nbp->nab", small, last.flatten(2)) / 16
        raw = products.flatten(1) - frame["products"].centre[number]
        expected = raw @ frame["products"].matrix[number]
        assert torch.allclose(answers["products"][number], expected, rtol=1e-4, atol=1e-4)


def test_bounds_are_known_or_come_from_the_public_reference(ensemble):
    entries = {entry.tap.name: entry for entry in ensemble[1].taps}
    assert entries["attention"].bound == entries[f"attention.{FIRST}"].bound == 1.0
    assert "by construction" in entries["attention"].bound_source
    assert "public labels" in entries["products"].bound_source


def test_bounds_of_one_teacher_whole_products_and_signs():
    """Against the same network by torch alone, and numpy's quantile."""
    spec = NetworkSpec("cnn-small", (1, 28, 28), 10, {"channels": [4, 8], "width": 8})
    network = build(spec)
    state = {name: value[None] for name, value in network.state_dict().items()}
    public = torch.randn(41, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    shapes = {FIRST: (4, 12, 12), f"{FIRST}.input": (4, 12, 12), LAST: (8, 4, 4)}
    taps = [
        parse_tap(text).with_shape(10, shapes)
        for text in (f"signs={FIRST}.input", f"products={FIRST},{LAST}")
    ]
    cpu = torch.device("cpu")
    found = measure_reference(state, spec, taps, "single", public, 0.5, "a network", cpu)
    signs, products = found.taps
    assert not found.frames
    assert signs.bound == pytest.approx((4 * 12 * 12) ** 0.5)
    with torch.no_grad():
        first = network.features[:2](public)
        last = network.features[2:4](first)
    said = torch.einsum("naij,nbij->nab", F.avg_pool2d(first, 3), last) / 16
    norms = said.flatten(1).norm(dim=1).numpy()
    assert products.bound == pytest.approx(float(np.median(norms)), rel=0.05)  # two figures


def test_a_dp_sgd_teacher_serves_them_whole_and_free_of_bounds(world, ledger, tmp_path):
    card = make(world, ledger, tmp_path / "rich", RICH)
    assert [entry.bound for entry in card.taps] == [0.0, 0.0, 0.0]
    assert [entry.tap.shape for entry in card.taps] == [(4, 12, 12), (4, 8), (4, 4)]
    assert not read_alignments(tmp_path / "rich")


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_a_diverged_network_leaves_the_others_and_says_zero(world, ensemble, poison):
    """Locality: what teachers 1 to 3 say is bit for bit the same; teacher 0's rows are zeros."""
    folder, card = ensemble
    dataset, parts = world
    asked = dataset.samples[torch.from_numpy(parts.test[:9])]
    before = TeacherModels.load(folder, "cpu").answers(asked)
    weights = read_tensors(folder, "weights.safetensors")
    for value in weights.values():
        value[0] = poison
    after = TeacherModels(card, weights, read_alignments(folder)).answers(asked)
    for name in before:
        assert torch.equal(after[name][1:], before[name][1:])
        assert torch.equal(after[name][0], torch.zeros_like(after[name][0])), name
        assert float(before[name].abs().sum()) > 0


@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        ("signs=a.input", "attention=a.input:4"),
        ("products=a,b", "products=a,b:8"),
        ("hint=a:map", "hint=PATH:8"),
    ],
)
def test_an_ensemble_refuses_what_has_no_mean(text, way_out):
    tap = parse_tap(text)
    with pytest.raises(UserError, match="says nothing") as refusal:
        is_aligned(tap, "ensemble")
    assert way_out in str(refusal.value)
    assert "dp-sgd" in str(refusal.value)
    assert not is_aligned(tap, "dp-sgd")
    assert not is_aligned(tap, "single")


def test_which_taps_need_public_samples():
    texts = ("attention=a", "signs=a", "products=a,b", "products=a,b:8", "hint=a:8")
    taps = {text: parse_tap(text) for text in texts}
    assert [t for t in texts if needs_public(taps[t], "single")] == list(texts[2:])
    assert [t for t in texts if needs_public(taps[t], "dp-sgd")] == list(texts[3:])
    assert not needs_public(taps["attention=a"], "ensemble")


def test_signs_of_what_is_not_finite_are_not_finite():
    """A diverged network must answer zeros, not a row of −1."""
    tap = parse_tap("signs=a")
    features = {"a": torch.tensor([[[[1.0, -2.0]]], [[[float("nan"), 1.0]]], [[[1e39, 0.0]]]])}
    signs = tap.read(torch.zeros(3, 1), features)
    assert signs[0].flatten().tolist() == [1.0, -1.0]
    assert signs[1].isnan().any()
    assert signs[2].isnan().any()
