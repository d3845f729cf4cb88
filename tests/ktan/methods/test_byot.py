"""BYOT: its losses against the public code and by hand, and who learns from whom."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktan.errors import UserError
from ktan.methods import Batch, Binding, Objective, View
from ktan.methods.byot import BYOT, feature_distance, self_distillation
from ktan.methods.combination import parse_method
from ktan.methods.local import Local
from ktan.networks import NetworkSpec, NetworkStages, build, stages_of
from ktan.networks.exits import ExitHead, exit_heads
from ktan.teacher import AnswerTap
from tests.ktan.methods.references import inputs, reference

SPEC = NetworkSpec("resnet8", (3, 8, 8), 3)


def batch(labelled: int = 4, answered: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        labelled=torch.randn(labelled, 3, 8, 8, generator=generator),
        labels=torch.randint(0, 3, (labelled,), generator=generator),
        answered=torch.randn(answered, 3, 8, 8, generator=generator),
        answers={},
        answered_labels=torch.full((answered,), -1),
    )


def bound(method: BYOT) -> tuple[nn.Module, Objective]:
    torch.manual_seed(0)
    student = build(SPEC)
    binding = Binding(student, SPEC.input_shape, SPEC.classes, stages=stages_of(SPEC))
    return student, method.build(binding)


def test_both_self_losses_are_the_public_codes() -> None:
    given = inputs()
    kd = reference("byot", "kd_loss_function")
    exits = [given[f"student_exit_logits_{i}"].requires_grad_() for i in (1, 2)]
    found = sum(self_distillation(q, given["student_exit_logits_3"], 3.0) for q in exits)
    assert found.item() == pytest.approx(kd.value - kd.more["entropy_of_target"], rel=1e-5)
    found.backward()
    for number, logits in enumerate(exits, start=1):
        expected = kd.gradient_norms[f"student_exit_logits_{number}"]
        assert logits.grad.norm().item() == pytest.approx(expected, rel=1e-4)
    features = reference("byot", "feature_loss_function")
    values = [
        feature_distance(given[f"student_exit_feature_{i}"], given["student_exit_feature_3"])
        for i in (1, 2)
    ]
    # The public code sums over its batch of 4.
    assert 4 * sum(values).item() == pytest.approx(features.value, rel=1e-5)


def test_every_term_by_hand_on_a_students_own_maps() -> None:
    part = batch()
    method = BYOT(alpha=0.25, feature_weight=0.5, temperature=2.0)
    student, objective = bound(method)
    assert objective.paths == ("features.layer1", "features.layer2", "features")
    view = objective.observe(student, part)
    found = objective.losses("student", view, part)
    exits = []
    for head in exit_heads(objective):
        feature = head.bottleneck(view.features[head.spec.path]).mean(dim=(2, 3))
        exits.append((head.classifier(feature), feature))
    labels = part.labels
    hard = [F.cross_entropy(logits[:4], labels) for logits, _ in exits]
    p = torch.softmax(view.logits / 2, dim=1)
    soft = [
        (p * (p.log() - torch.log_softmax(logits / 2, dim=1))).sum(dim=1).mean()
        for logits, _ in exits
    ]
    far = [((feature - view.features["features"]) ** 2).sum(dim=1).mean() for _, feature in exits]
    torch.testing.assert_close(found["local"], 0.75 * F.cross_entropy(view.logits[:4], labels))
    torch.testing.assert_close(found["exits"], 0.75 * (hard[0] + hard[1]))
    torch.testing.assert_close(found["exits_kd"], 0.25 * 4 * (soft[0] + soft[1]))
    torch.testing.assert_close(found["exits_feature"], 0.5 * (far[0] + far[1]))


def gradients(term: str) -> dict[str, bool]:
    """Which parts a term's gradient reaches."""
    part = batch()
    student, objective = bound(BYOT(feature_weight=1.0))
    losses = objective.losses("student", objective.observe(student, part), part)
    losses[term].backward()

    def reached(module: nn.Module) -> bool:
        return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())

    first, second = exit_heads(objective)
    features = student.features
    return {
        "classifier": reached(student.classifier),
        "layer3": reached(features.layer3),
        "layer2": reached(features.layer2),
        "layer1": reached(features.layer1),
        "second exit": reached(second.bottleneck),
        "first exit": reached(first.bottleneck),
        "their classifiers": reached(first.classifier) and reached(second.classifier),
        "any of their classifiers": reached(first.classifier) or reached(second.classifier),
    }


def test_the_deepest_exit_learns_from_labels_alone() -> None:
    assert gradients("local") == {
        "classifier": True, "layer3": True, "layer2": True, "layer1": True, "second exit": False,
        "first exit": False, "their classifiers": False, "any of their classifiers": False,
    }  # fmt: skip
    for term in ("exits", "exits_kd"):
        assert gradients(term) == {
            "classifier": False, "layer3": False, "layer2": True, "layer1": True,
            "second exit": True, "first exit": True, "their classifiers": True,
            "any of their classifiers": True,
        }  # fmt: skip
    assert gradients("exits_feature") == {
        "classifier": False, "layer3": False, "layer2": True, "layer1": True, "second exit": True,
        "first exit": True, "their classifiers": False, "any of their classifiers": False,
    }  # fmt: skip


def test_identical_exits_have_no_self_loss() -> None:
    logits, feature = torch.randn(5, 3), torch.randn(5, 8)
    assert self_distillation(logits, logits.clone(), 3.0).item() == pytest.approx(0, abs=1e-6)
    assert feature_distance(feature, feature.clone()).item() == 0
    # A shift of all logits changes no opinion.
    assert self_distillation(logits + 2, logits, 3.0).item() == pytest.approx(0, abs=1e-6)


def test_exits_run_once_a_step_whatever_looks_at_them() -> None:
    part = batch()
    student, objective = bound(BYOT())
    view = objective.observe(student, part)
    objective.losses("student", view, part)
    norm = exit_heads(objective)[0].bottleneck[1]
    assert int(norm.num_batches_tracked) == 1
    objective.losses("student", objective.observe(student, part), part)
    assert int(norm.num_batches_tracked) == 2
    objective.eval()
    found = objective.measures(view, part)
    assert int(norm.num_batches_tracked) == 2
    assert set(found) == {"exit_1_accuracy", "exit_2_accuracy"}
    logits = exit_heads(objective)[0](view.features["features.layer1"])[0][:4]
    share = (logits.argmax(dim=1) == part.labels).float().mean()
    assert found["exit_1_accuracy"].item() == pytest.approx(share.item())


def test_training_brings_the_exits_to_the_deepest_one() -> None:
    part = batch(labelled=24, answered=0)
    student, objective = bound(BYOT())
    optimiser = torch.optim.Adam([*student.parameters(), *objective.learnables("student")], 1e-2)
    history = []
    for _ in range(25):
        losses = objective.losses("student", objective.observe(student, part), part)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    assert history[-1]["exits"] < history[0]["exits"] / 2
    assert history[-1]["local"] < history[0]["local"] / 2


def test_losses_are_those_of_float32_under_bf16() -> None:
    part = batch(labelled=16)
    student, objective = bound(BYOT(feature_weight=0.1))
    exact = objective.losses("student", objective.observe(student, part), part)
    with torch.autocast("cpu", torch.bfloat16):
        view = objective.observe(student, part)
    found = objective.losses("student", view, part)
    for name, loss in found.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name], rtol=0.1, atol=0.02)


def test_samples_without_labels_are_taught_by_the_deepest_exit() -> None:
    part = replace(batch(), labels=torch.full((4,), -1))
    student, objective = bound(BYOT())
    losses = objective.losses("student", objective.observe(student, part), part)
    assert losses["local"].item() == losses["exits"].item() == 0
    assert losses["exits_kd"].item() > 0


def test_in_a_combination_the_label_loss_is_the_first_methods() -> None:
    torch.manual_seed(0)
    student = build(SPEC)
    taps = {"probabilities": AnswerTap("probabilities", "probabilities", (3,))}
    answers = {"probabilities": torch.rand(3, 3)}
    method = parse_method("soft-logits+byot", {"local_weight": 0.5})
    binding = Binding(student, SPEC.input_shape, 3, taps, {}, answers, stages=stages_of(SPEC))
    objective = method.build(binding)
    part = replace(batch(), answers=answers)
    view: View = objective.observe(student, part)
    found = objective.losses("student", view, part)
    assert list(found) == ["local", "kd", "exits", "exits_kd", "exits_feature"]
    expected = 0.5 * F.cross_entropy(view.logits[:4], part.labels)
    torch.testing.assert_close(found["local"], expected)
    assert [head.spec.path for head in exit_heads(objective)] == [
        "features.layer1",
        "features.layer2",
    ]


@pytest.mark.parametrize("maps", [(), ("features",)])
def test_a_student_of_one_stage_has_no_place_for_an_exit(maps: tuple[str, ...]) -> None:
    stages = NetworkStages(maps, maps, "features")
    binding = Binding(nn.Linear(3, 3), (3,), 3, stages=stages)
    with pytest.raises(UserError, match=f"this one has {len(maps)} of maps"):
        BYOT().build(binding)
    assert exit_heads(Local().build(binding)) == []


@pytest.mark.parametrize("wrong", [{"alpha": 1.5}, {"alpha": -0.1}, {"temperature": 0.0}])
def test_options_that_no_loss_can_have_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        BYOT(**wrong)


def test_exits_stand_on_any_network_of_maps() -> None:
    spec = NetworkSpec("cnn-small", (1, 28, 28), 10)
    student = build(spec)
    objective = BYOT().build(
        Binding(student, spec.input_shape, spec.classes, stages=stages_of(spec))
    )
    (head,) = exit_heads(objective)
    assert isinstance(head, ExitHead)
    # From 12 × 12 to the last map's 4 × 4, and to the length of the student's own feature.
    assert (head.spec.stride, head.spec.features) == (3, 64)
    feature_map: Tensor = torch.zeros(2, 16, 12, 12)
    assert head(feature_map)[0].shape == (2, 10)
