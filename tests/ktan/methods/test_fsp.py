"""FSP: products of consecutive maps alone, then cross-entropy."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ktan.errors import UserError
from ktan.methods.fsp import FlowOfProcedure
from ktan.teacher import AnswerTap
from tests.ktan.methods.bind import bind
from tests.ktan.methods.conv_pair import EQUAL, SHAPE, WIDER, Given, network, scene, taught_teacher
from tests.ktan.methods.references import inputs, reference

LAYERS = ("features.layer1", "features.layer2", "features.layer3")


def products(first: Tensor, second: Tensor) -> Tensor:
    """Position by position, the larger map averaged over squares of two by two."""
    if first.shape[2] > second.shape[2]:
        first = (
            first[:, :, ::2, ::2] + first[:, :, 1::2, ::2]
            + first[:, :, ::2, 1::2] + first[:, :, 1::2, 1::2]
        ) / 4  # fmt: skip
    return torch.einsum("nchw,ndhw->ncd", first, second) / second[0, 0].numel()


def test_loss_is_that_of_two_public_implementations() -> None:
    """Against maps that a teacher answers whole, and against products that it answers."""
    given = inputs()
    theirs = [given[f"teacher_map_{i}"] for i in (1, 2, 3)]
    mine = [given[f"student_map_{i}"].requires_grad_() for i in (1, 2, 3)]
    whole = {f"hint.{i}": value for i, value in enumerate(theirs)}
    flows = {
        "products.0": products(theirs[0], theirs[1]),
        "products.1": products(theirs[1], theirs[2]),
    }
    for kind, answers in (("hint", whole), ("products", flows)):
        taps = {n: AnswerTap(n, kind, tuple(v.shape[1:])) for n, v in answers.items()}
        paths: dict[str, str | tuple[str, ...]] = {
            name: f"maps.{i}" if kind == "hint" else (f"maps.{i}", f"maps.{i + 1}")
            for i, name in enumerate(answers)
        }
        student = Given(mine)
        objective = bind(FlowOfProcedure(), student, SHAPE, taps, paths, answers)
        batch = scene(FlowOfProcedure(), samples=2).batch
        batch = replace(batch, answers=answers)
        loss = objective.losses("student", objective.observe(student, batch), batch)["flow"]
        gradients = torch.autograd.grad(loss, mine)
        for source in ("RepDistiller", "Knowledge-Distillation-Zoo"):
            expected = reference("fsp", source)
            assert loss.item() == pytest.approx(expected.value, rel=1e-5)
            norms = [expected.gradient_norms[f"student_map_{i}"] for i in (1, 2, 3)]
            assert [g.norm().item() for g in gradients] == pytest.approx(norms, rel=1e-4)


def test_a_student_that_is_its_teacher_has_no_loss() -> None:
    assert scene(FlowOfProcedure(), same=True).loss("flow").item() == pytest.approx(0, abs=1e-10)
    assert scene(FlowOfProcedure()).loss("flow").item() > 1e-4


def test_products_of_another_width_go_through_a_connector_on_unit_scale() -> None:
    found = scene(FlowOfProcedure(), teacher=WIDER)
    view, (first, second, third) = found.view(), LAYERS
    total = torch.zeros(())
    pairs = [(first, second), (second, third)]
    connectors = found.objective.owned["student"].values()
    for pair, connect, answer in zip(pairs, connectors, found.batch.answers.values(), strict=True):
        g = products(*(view.answered_features(path) for path in pair))
        own = torch.einsum("ab,nbc,dc->nad", connect.left.weight, g, connect.right.weight)
        centre = answer.mean(dim=0)
        scale = (answer - centre).square().mean().sqrt()
        total = total + (own - (answer - centre) / scale).square().mean()
    torch.testing.assert_close(found.loss("flow"), total)


def test_reduced_products_are_met_as_vectors() -> None:
    tap = AnswerTap("products", "products", (5,), noise_sd=0.5)
    answers = {"products": torch.randn(6, 5, generator=torch.Generator().manual_seed(0))}
    student = network(EQUAL, 0)
    torch.manual_seed(0)
    objective = bind(
        FlowOfProcedure(), student, SHAPE, {"products": tap}, {"products": LAYERS[:2]}, answers
    )
    batch = scene(FlowOfProcedure()).batch
    batch = replace(batch, answers=answers)
    view = objective.observe(student, batch)
    connect = objective.owned["student"]["products"].right
    own = connect(products(*(view.answered_features(path) for path in LAYERS[:2])).flatten(1))
    scale = (answers["products"] - answers["products"].mean(dim=0)).square().mean().sqrt()
    target = (answers["products"] - answers["products"].mean(dim=0)) / scale
    found = objective.losses("student", view, batch)["flow"]
    torch.testing.assert_close(found, (own - target).square().mean())


def test_gradient_reaches_the_maps_and_connectors_and_nothing_else() -> None:
    found = scene(FlowOfProcedure(), teacher=WIDER)
    reached = set(found.gradients("flow"))
    assert {name for name, _ in found.student.named_parameters() if "features" in name} <= reached
    assert sum(name.startswith("connector.") for name in reached) == 2 * 2
    assert not any("classifier" in name for name in reached)
    assert not any(name.startswith("connector.") for name in found.gradients("local"))
    assert not taught_teacher(found)


@pytest.mark.parametrize("teacher", [EQUAL, WIDER])
def test_noise_on_the_products_leaves_the_gradient_unbiased(teacher: tuple[int, ...]) -> None:
    clean = scene(FlowOfProcedure(), teacher=teacher)
    more, less = (
        clean.answered(lambda v, side=side: v + side * v.roll(1, 0)).gradients("flow")
        for side in (1, -1)
    )
    for name, gradient in clean.gradients("flow").items():
        torch.testing.assert_close((more[name] + less[name]) / 2, gradient, atol=1e-5, rtol=1e-4)


def test_stages_and_reduced_precision() -> None:
    found = scene(FlowOfProcedure())
    active = [
        set(found.objective.losses("student", found.view(), found.batch, stage))
        for stage in found.objective.stages
    ]
    assert active == [{"flow"}, {"local"}]
    low = found.loss("flow", bf16=True).item()
    assert low == pytest.approx(found.loss("flow").item(), rel=0.1)


def test_one_map_makes_no_products() -> None:
    taps = {"hint": AnswerTap("hint", "hint", (4, 8, 8))}
    with pytest.raises(UserError, match="fsp needs products"):
        bind(FlowOfProcedure(), network(EQUAL, 0), SHAPE, taps, {"hint": LAYERS[0]}, {})


def test_a_vector_of_the_students_is_refused() -> None:
    taps = {"products": AnswerTap("products", "products", (5,))}
    with pytest.raises(UserError, match=r"features puts out \[8\], and a map"):
        bind(
            FlowOfProcedure(),
            network(EQUAL, 0),
            SHAPE,
            taps,
            {"products": ("features", "features")},
            {},
        )
