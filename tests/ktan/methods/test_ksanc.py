"""KSANC: squeezed logits and descriptors, attention by the task, the game over logits."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktan.methods import Batch, Binding, Objective
from ktan.methods.ksanc import KSANC, LogitsJudge, Squeeze, TaskAttention
from ktan.teacher import AnswerTap
from tests.ktan.methods.bind import bind
from tests.ktan.methods.conv_pair import WIDER, Scene, scene, taught_teacher

CLASSES = 5


class Logits(nn.Module):
    """A student whose parameters are its logits."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, samples: Tensor) -> Tensor:
        return self.values * 1


def of_logits(
    own: Tensor, theirs: Tensor, noise_sd: float = 0.0, labels: Tensor | None = None, **options: Any
) -> Scene:
    """A teacher that answers logits alone."""
    torch.manual_seed(0)
    student, count = Logits(own), len(own)
    taps = {"logits": AnswerTap("logits", "logits", (CLASSES,), noise_sd)}
    answers = {"logits": theirs}
    objective = bind(KSANC(**options), student, (1,), taps, {}, answers, classes=CLASSES)
    samples = torch.zeros(count, 1)
    labels = torch.full((count,), -1) if labels is None else labels
    batch = Batch(samples[:0], labels[:0], samples, answers, labels)
    return Scene(student, None, objective, batch)  # type: ignore[arg-type]


def poles(count: int = 128) -> tuple[Tensor, Tensor]:
    """A student's logits around nothing, and a teacher's that are sure of a class."""
    torch.manual_seed(1)
    own = 0.5 * torch.randn(count, CLASSES)
    sure = 4 * F.one_hot(torch.randint(0, CLASSES, (count,)), CLASSES)
    return own, sure + 0.5 * torch.randn(count, CLASSES)


def turn(player: str, found: Scene, steps: int, *, only: str | None = None) -> None:
    own = list(found.student.parameters()) if player == "student" else []
    optimiser = torch.optim.Adam([*own, *found.objective.learnables(player)], lr=2e-2)
    for _ in range(steps):
        view = found.view()
        with found.objective.turn_of(player):
            optimiser.zero_grad()
            terms = found.objective.losses(player, view, found.batch)
            chosen = [loss for name, loss in terms.items() if only in (None, name)]
            torch.stack(chosen).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def accuracy(found: Scene) -> float:
    measured = found.objective.measures(found.view(), found.batch)
    return measured["logits_discriminator_accuracy"].item()


def part(found: Scene, player: str, name: str) -> Any:
    """A module that the method trains."""
    modules: Any = found.objective.owned[player]
    return modules[name]


def suspicion(found: Scene) -> float:
    """-log D of the student's logits: how sure the discriminator is that they are the student's."""
    both = torch.cat([found.batch.answers["logits"], found.view().logits])
    judge = part(found, "discriminator", "judge")
    scores, _ = judge(both - both.mean(dim=1, keepdim=True))
    return F.softplus(-scores[len(found.batch) :]).mean().item()


def test_logits_are_compared_after_centring() -> None:
    own, theirs = poles(8)
    one, other = (x - x.mean(dim=1, keepdim=True) for x in (own, theirs))
    expected = 3 * (one - other).square().mean()
    torch.testing.assert_close(of_logits(own, theirs, logits_weight=3.0).loss("logits"), expected)
    assert of_logits(theirs + 7, theirs).loss("logits").item() == pytest.approx(0, abs=1e-6)


def test_both_sides_of_the_game_by_torchs_own_losses() -> None:
    own, theirs = poles(16)
    labels = torch.randint(0, CLASSES, (16,))
    found = of_logits(own, theirs, labels=labels, regularisation=0.3, adversarial_weight=2.0)
    judge = part(found, "discriminator", "judge")
    both = torch.cat([theirs, own])
    scores, classes = judge(both - both.mean(dim=1, keepdim=True))
    chance = torch.sigmoid(scores)
    whose = torch.cat([torch.ones(16), torch.zeros(16)])
    told = 2 * F.binary_cross_entropy(chance, whose)
    classified = 2 * F.cross_entropy(classes, labels.repeat(2))
    regulariser = -0.3 * chance[16:].log().mean()
    losses = found.objective.losses("discriminator", found.view(), found.batch)
    torch.testing.assert_close(losses["logits_discriminator"], told + classified + regulariser)
    deceit = -chance[16:].log().mean() + F.cross_entropy(classes[16:], labels)
    torch.testing.assert_close(found.loss("logits_adversarial"), 2 * deceit)


def test_a_label_that_is_unknown_is_the_teachers_best_guess() -> None:
    own, theirs = poles(16)
    guessed = of_logits(own, theirs, labels=theirs.argmax(dim=1))
    for term in ("logits_adversarial", "logits"):
        torch.testing.assert_close(of_logits(own, theirs).loss(term), guessed.loss(term))
    assert of_logits(own, theirs).loss("local").item() == 0


def test_discriminators_turns_raise_its_accuracy_and_the_students_turns_lower_it() -> None:
    own, theirs = poles()
    found = of_logits(own, theirs, regularisation=0.0)
    before = accuracy(found)
    turn("discriminator", found, 30)
    told = accuracy(found)
    assert told > before + 0.2
    caught = suspicion(found)
    turn("student", found, 1, only="logits_adversarial")
    assert suspicion(found) < caught
    turn("student", found, 60, only="logits_adversarial")
    assert accuracy(found) < told - 0.1


def test_the_regulariser_keeps_the_discriminator_from_certainty() -> None:
    """Where it tells them apart it ends at μ / (1 + μ) for the student's."""
    own, theirs = poles()

    def chance(regularisation: float) -> float:
        found = of_logits(own, theirs, regularisation=regularisation)
        turn("discriminator", found, 100)
        judge = part(found, "discriminator", "judge")
        both = torch.cat([theirs, own])
        scores, _ = judge(both - both.mean(dim=1, keepdim=True))
        return torch.sigmoid(scores[len(theirs) :]).mean().item()

    assert chance(0.0) < 0.02
    assert chance(0.25) == pytest.approx(0.2, abs=0.04)


def test_both_kinds_of_logits_share_the_statistics_of_one_batch() -> None:
    """Judged apart, both would be normalised alike, and a scale could not be told."""
    torch.manual_seed(0)
    theirs = torch.randn(64, CLASSES)
    theirs = theirs - theirs.mean(dim=1, keepdim=True)
    found = of_logits(0.2 * theirs, theirs, regularisation=0.0)
    judge = part(found, "discriminator", "judge")
    apart = [judge(part)[0] for part in (theirs, 0.2 * theirs)]
    torch.testing.assert_close(*apart, atol=1e-2, rtol=1e-2)
    turn("discriminator", found, 60)
    assert accuracy(found) > 0.8
    assert not list(LogitsJudge(CLASSES, 8).buffers())


def test_identical_logits_cannot_be_told_apart() -> None:
    _, theirs = poles()
    found = of_logits(theirs, theirs)
    turn("discriminator", found, 20)
    assert accuracy(found) == 0.5


def test_noise_on_logits_is_matched_and_leaves_the_gradient_unbiased() -> None:
    torch.manual_seed(0)
    clean = torch.randn(512, CLASSES)
    noise = 2 * torch.randn(512, CLASSES)

    def told(published: float) -> float:
        found = of_logits(clean, clean + noise, published, regularisation=0.0)
        turn("discriminator", found, 20)
        return accuracy(found)

    assert told(published=0.0) > 0.65
    assert told(published=2.0) < 0.6
    own, theirs = poles(8)
    zero, more, less = (
        of_logits(own, theirs + noise[:8] * side, 2.0).gradients("logits")["values"]
        for side in (0, 1, -1)
    )
    torch.testing.assert_close((more + less) / 2, zero)


def by_hand(stage: Tensor, descriptor: Tensor, layer: TaskAttention) -> Tensor:
    """One sample's squeezed descriptor, position by position; stage [c, h, w]."""
    lifted = layer.lift.weight @ descriptor + layer.lift.bias
    positions = stage.flatten(1).T
    weight, bias = layer.score.weight[0, :, 0, 0], layer.score.bias
    scores = torch.stack([(weight * (p + lifted).clamp(min=0)).sum() + bias[0] for p in positions])  # type: ignore[index]
    share = scores.exp() / scores.exp().sum()
    return (share[:, None] * positions).sum(dim=0)


def test_squeezed_descriptors_by_hand() -> None:
    torch.manual_seed(0)
    stages = [torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)]
    squeeze = Squeeze([3, 5], 7)
    found = squeeze(stages)
    for row in range(2):
        last = stages[-1][row].flatten(1).mean(dim=1)
        descriptor = squeeze.descriptor.weight @ last + squeeze.descriptor.bias
        for number, layer in enumerate(squeeze.attentions):
            assert isinstance(layer, TaskAttention)
            expected = by_hand(stages[number][row], descriptor, layer)
            torch.testing.assert_close(found[number][row], expected)


def test_attention_is_a_share_of_positions_that_the_global_descriptor_moves() -> None:
    """Added without an activation behind it, the descriptor would cancel in the softmax."""
    torch.manual_seed(0)
    layer, stage = TaskAttention(4, 6), torch.randn(2, 4, 3, 3)
    here, there = (layer.attention(stage, 3 * torch.randn(2, 6)) for _ in range(2))
    for share in (here, there):
        torch.testing.assert_close(share.sum(dim=1), torch.ones(2))
        assert (share >= 0).all()
    assert (here - there).abs().max() > 0.01


def test_attention_term_is_the_sum_over_stages_of_mean_squared_differences() -> None:
    found = scene(KSANC(attention_weight=2.0), teacher=WIDER)
    view = found.view()
    maps = [value for name, value in found.batch.answers.items() if name != "logits"]
    scaled = []
    for value in maps:
        centred = value - value.mean(dim=(0, 2, 3), keepdim=True)
        scaled.append(centred / centred.square().mean().sqrt())
    theirs = part(found, "attention", "squeeze")(scaled)
    connected = [
        connect(view.answered_features(path))
        for connect, path in zip(
            part(found, "student", "connectors"), found.objective.paths, strict=True
        )
    ]
    mine = part(found, "student", "squeeze")(connected)
    expected = 2 * sum((m - t).square().mean() for m, t in zip(mine, theirs, strict=True))
    torch.testing.assert_close(found.loss("squeezed"), expected)


def test_a_student_that_is_its_teacher_has_no_loss() -> None:
    same = scene(KSANC(), same=True)
    part(same, "student", "squeeze").load_state_dict(
        part(same, "attention", "squeeze").state_dict()
    )
    taps = [name for name in same.batch.answers if name != "logits"]
    with torch.no_grad():
        for connect, name in zip(part(same, "student", "connectors"), taps, strict=True):
            value = same.batch.answers[name]
            centre = value.mean(dim=(0, 2, 3))
            scale = (value - centre[:, None, None]).square().mean().sqrt()
            connect.project.weight.copy_(torch.eye(len(centre))[:, :, None, None] / scale)
            connect.project.bias.copy_(-centre / scale)
    assert same.loss("squeezed").item() == pytest.approx(0, abs=1e-8)
    assert same.loss("logits").item() == pytest.approx(0, abs=1e-8)
    assert scene(KSANC()).loss("squeezed").item() > 0.01


def test_gradients_reach_what_they_must_and_nothing_else() -> None:
    found = scene(KSANC(), teacher=WIDER)
    reached = {term: set(found.gradients(term)) for term in ("logits", "squeezed")}
    whole = {name for name, _ in found.student.named_parameters()}
    assert reached["logits"] == whole
    assert {name for name in whole if name.startswith("features")} <= reached["squeezed"]
    beside = {name.split(".")[1] for name in reached["squeezed"] - whole}
    assert beside == {"student"}
    objective = found.objective
    everything = {
        player: objective.learnables(player) for player in ("attention", "discriminator", "student")
    }
    everything["student"] += list(found.student.parameters())
    for player in ("attention", "discriminator"):
        (loss,) = objective.losses(player, found.view(), found.batch).values()
        for other, parameters in everything.items():
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
            there = [gradient is not None and bool(gradient.any()) for gradient in gradients]
            assert any(there) == (player == other), f"{player} reaches {other}"
    assert not taught_teacher(found)


def test_the_teachers_attention_learns_the_task_and_does_not_collapse() -> None:
    found = scene(KSANC(), samples=24)
    objective = found.objective

    def squeezed() -> list[Tensor]:
        maps = [v for name, v in found.batch.answers.items() if name != "logits"]
        scaled = [(v - v.mean(dim=(0, 2, 3), keepdim=True)) / v.std() for v in maps]
        values: list[Tensor] = part(found, "attention", "squeeze")(scaled)
        return values

    (before,) = objective.losses("attention", found.view(), found.batch).values()
    spread = [value.std(dim=0).mean() for value in squeezed()]
    for _ in range(10):
        turn("attention", found, 4)
        turn("student", found, 1, only="squeezed")
    (after,) = objective.losses("attention", found.view(), found.batch).values()
    assert after < 0.8 * before
    for value, old in zip(squeezed(), spread, strict=True):
        assert value.std(dim=0).mean() > 0.7 * old


def test_without_maps_the_attention_term_rests() -> None:
    own, theirs = poles(8)
    found = of_logits(own, theirs)
    assert found.objective.players == ("discriminator", "student")
    assert set(found.objective.losses("student", found.view(), found.batch)) == {
        "local", "logits", "logits_adversarial",
    }  # fmt: skip
    noisy = replace(scene(KSANC()).teacher.taps["hint=features.layer1:map"], noise_sd=0.1)
    assert not Binding(
        found.student, (1,), CLASSES, {noisy.name: noisy}, {noisy.name: ("x",)}
    ).taps_for(next(iter(KSANC.needs)))
    plain = scene(KSANC(attention_weight=0.0))
    assert set(plain.batch.answers) == {"logits"}
    assert isinstance(plain.objective, Objective)


def test_reduced_precision_stays_close() -> None:
    found = scene(KSANC(), samples=12)
    for term in ("logits", "squeezed", "logits_adversarial"):
        low = found.loss(term, bf16=True)
        assert low.dtype == torch.float32
        assert low.item() == pytest.approx(found.loss(term).item(), rel=0.1)
