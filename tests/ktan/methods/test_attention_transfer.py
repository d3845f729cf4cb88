"""AT: unit attention maps of all stages beside the cross-entropy."""

from dataclasses import replace

import pytest
import torch

from ktan.errors import UserError
from ktan.methods import Batch
from ktan.methods.attention_transfer import AttentionTransfer
from ktan.teacher import AnswerTap
from tests.ktan.methods.bind import bind
from tests.ktan.methods.conv_pair import EQUAL, SHAPE, WIDER, Given, network, scene, taught_teacher
from tests.ktan.methods.references import inputs, reference

LAYERS = ("features.layer1", "features.layer2", "features.layer3")


def attention(feature: torch.Tensor) -> torch.Tensor:
    energy = feature.square().mean(dim=1)
    return energy / energy.square().sum(dim=(1, 2), keepdim=True).sqrt()


def test_loss_and_gradient_are_half_of_the_public_ones_at_beta_1000() -> None:
    """torchdistill and RepDistiller leave the paper's half out."""
    given = inputs()
    mine = [given[f"student_map_{i}"].requires_grad_() for i in (1, 2, 3)]
    theirs = {f"attention.{i}": attention(given[f"teacher_map_{i}"]) for i in (1, 2, 3)}
    taps = {n: AnswerTap(n, "attention", tuple(v.shape[1:])) for n, v in theirs.items()}
    student = Given(mine)
    paths = {name: f"maps.{i}" for i, name in enumerate(taps)}
    objective = bind(AttentionTransfer(), student, SHAPE, taps, paths, theirs)
    nothing = torch.zeros(0, *SHAPE), torch.zeros(0, dtype=torch.long)
    batch = Batch(*nothing, torch.zeros(2, *SHAPE), theirs, torch.tensor([-1, -1]))
    loss = objective.losses("student", objective.observe(student, batch), batch)["attention"]
    expected = reference("at", "torchdistill", mode="code")
    assert 2 * loss.item() == pytest.approx(expected.value, rel=1e-5)
    for number, gradient in enumerate(torch.autograd.grad(loss, mine), start=1):
        norm = expected.gradient_norms[f"student_map_{number}"]
        assert 2 * gradient.norm().item() == pytest.approx(norm, rel=1e-4)


def test_whole_maps_serve_as_well_as_attention_taps() -> None:
    found = scene(AttentionTransfer())
    network, view = found.teacher.networks[0], found.view()
    maps = {}
    value = found.batch.answered
    for name, module in network.features.named_children():  # type: ignore[union-attr, operator]
        value = module(value)
        if name.startswith("layer"):
            maps[f"hint.{name}"] = value.detach()
    taps = {n: AnswerTap(n, "hint", tuple(v.shape[1:])) for n, v in maps.items()}
    paths = dict(zip(taps, LAYERS, strict=True))
    objective = bind(AttentionTransfer(), found.student, SHAPE, taps, paths, maps)
    batch = replace(found.batch, answers=maps)
    derived = objective.losses("student", view, batch)["attention"]
    torch.testing.assert_close(derived, found.loss("attention"))


def test_a_student_that_is_its_teacher_has_no_loss_whatever_the_teachers_width() -> None:
    same = scene(AttentionTransfer(), same=True)
    assert same.loss("attention").item() == pytest.approx(0, abs=1e-8)
    assert scene(AttentionTransfer(), teacher=WIDER).loss("attention").item() > 0.1


def test_a_coarser_grid_is_met_by_pooling_before_the_norm() -> None:
    answers = {"attention": torch.rand(6, 4, 4, generator=torch.Generator().manual_seed(0))}
    taps = {"attention": AnswerTap("attention", "attention", (4, 4), noise_sd=0.1)}
    student, batch = network(EQUAL, 0), scene(AttentionTransfer()).batch
    objective = bind(AttentionTransfer(), student, SHAPE, taps, {"attention": LAYERS[0]}, answers)
    batch = replace(batch, answers=answers)
    view = objective.observe(student, batch)
    energy = view.answered_features(LAYERS[0]).square().mean(dim=1).reshape(6, 4, 2, 4, 2)
    energy = energy.mean(dim=(2, 4)).flatten(1)
    own = energy / energy.norm(dim=1, keepdim=True)
    expected = 500 * (own - answers["attention"].flatten(1)).square().mean()
    torch.testing.assert_close(objective.losses("student", view, batch)["attention"], expected)


def test_gradient_reaches_the_maps_and_nothing_else() -> None:
    found = scene(AttentionTransfer())
    reached = set(found.gradients("attention"))
    assert {name for name, _ in found.student.named_parameters() if "features" in name} == reached
    assert not taught_teacher(found)


def test_noise_on_the_attention_leaves_the_gradient_unbiased() -> None:
    clean = scene(AttentionTransfer())
    more, less = (
        clean.answered(lambda v, side=side: v + side * v.roll(1, 0)).gradients("attention")
        for side in (1, -1)
    )
    for name, gradient in clean.gradients("attention").items():
        mean = (more[name] + less[name]) / 2
        torch.testing.assert_close(mean, gradient, atol=1e-4, rtol=1e-3)


def test_reduced_precision_stays_close() -> None:
    found = scene(AttentionTransfer())
    low = found.loss("attention", bf16=True)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(found.loss("attention").item(), rel=0.1)


def test_kd_is_there_when_it_has_a_weight() -> None:
    found = scene(AttentionTransfer(kd_weight=1.0))
    terms = found.objective.losses("student", found.view(), found.batch)
    assert set(terms) == {"local", "attention", "kd"}
    taps = {"attention": AnswerTap("attention", "attention", (4, 4))}
    with pytest.raises(UserError, match="at needs probabilities or logits"):
        bind(AttentionTransfer(kd_weight=1.0), network(EQUAL, 0), SHAPE, taps, {}, {})


def test_a_vector_of_the_students_is_refused() -> None:
    taps = {"attention": AnswerTap("attention", "attention", (4, 4))}
    with pytest.raises(UserError, match=r"features puts out \[8\], and a map"):
        bind(AttentionTransfer(), network(EQUAL, 0), SHAPE, taps, {"attention": "features"}, {})
