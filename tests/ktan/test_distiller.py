"""A method in a plain loop ends where the trainer does, for networks that nobody has named."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ktan.data import Augment, Normalisation
from ktan.distil import Distiller, distil
from ktan.errors import UserError
from ktan.methods import Batch
from ktan.methods.combination import parse_method
from ktan.methods.ktan import KTAN
from ktan.methods.soft_logits import SoftLogits
from ktan.optimisers import learning_rate, make_optimiser
from ktan.teacher import AnswerTap
from ktan.trainer import TrainerOptions, train
from ktan.training_data import BatchStream, TrainingData

SHAPE = (1, 8, 8)
NORMALISE = Normalisation((127.5,), (73.6,))
OPTIONS = TrainerOptions(steps=8, labelled_batch=4, answered_batch=8, precision="float32")
STREAM = {"labelled_batch": 4, "answered_batch": 8, "seed": 0, "device": torch.device("cpu")}


class Own(nn.Module):
    """A network as one writes it: an activation that overwrites, one that is called, dropout."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(inplace=True))
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(2 * width)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(2 * width, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.norm(self.second(self.first(images))))
        logits: Tensor = self.head(self.dropout(maps.mean(dim=(2, 3))))
        return logits


class Stored:
    """A teacher whose answers are at hand, and who is not to be asked again."""

    taps: Mapping[str, AnswerTap] = {
        "probabilities": AnswerTap("probabilities", "probabilities", (3,), 0.1),
        "hint": AnswerTap("hint", "hint", (5,), 0.5),
    }

    def answer(self, samples: Tensor) -> dict[str, Tensor]:
        raise AssertionError("asked, and each answer may cost")


def own(width: int = 4, seed: int = 1) -> Own:
    torch.manual_seed(seed)
    return Own(width).to(memory_format=torch.channels_last)


def data() -> TrainingData:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (36, *SHAPE), generator=draw).to(torch.uint8)
    labels = torch.randint(0, 3, (36,), generator=draw)
    answers = {
        "probabilities": torch.softmax(torch.randn(24, 3, generator=draw), dim=1),
        "hint": torch.randn(24, 5, generator=draw),
    }
    known = labels[12:].clone()
    known[::2] = -1
    return TrainingData(images[:12], labels[:12], images[12:], answers, known)


def batches(part: TrainingData) -> BatchStream:
    return BatchStream(part, normalise=NORMALISE, augment=Augment("none"), **STREAM)  # type: ignore[arg-type]


def bound(method: str, student: nn.Module, part: TrainingData, **options: Any) -> Distiller:
    assert part.answered is not None
    samples = NORMALISE(part.answered)
    teacher = Stored() if parse_method(method, {}).needs else None
    return distil(method, student, teacher, samples, part.answers, **options)


def optimiser_of(student: nn.Module, method: Distiller) -> torch.optim.Optimizer:
    return make_optimiser([*student.parameters(), *method.parameters()], "adam")


def steps(
    student: nn.Module,
    method: Distiller,
    optimiser: torch.optim.Optimizer,
    stream: BatchStream,
    numbers: range,
    *,
    in_parts: bool = True,
) -> None:
    """The loop that the documentation shows, at the trainer's learning rate."""
    for step in numbers:
        batch = stream.batch(step)
        if in_parts:
            loss = method(
                student,
                (batch.answered, batch.answered_labels),
                batch.answers,
                labelled=(batch.labelled, batch.labels),
            )
        else:
            loss = method(student, batch)
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(OPTIONS.learning_rate, step, OPTIONS.steps or 0)
        optimiser.step()
        optimiser.zero_grad()


def same(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("in_parts", [True, False])
@pytest.mark.parametrize("name", ["soft-logits", "ktan", "ktan+byot"])
def test_a_plain_loop_ends_with_the_trainers_weights(name: str, in_parts: bool) -> None:
    part = data()
    taught, looped = own(), own()
    objective = bound(name, taught, part).objective
    train(taught, objective, part, OPTIONS, normalise=NORMALISE, progress=False)
    method = bound(name, looped, part, steps=OPTIONS.steps)
    optimiser = optimiser_of(looped, method)
    steps(looped, method, optimiser, batches(part), range(8), in_parts=in_parts)
    assert same(taught, looped)
    assert same(objective, method.objective)
    assert not same(taught, own())


def test_a_bounded_gradient_is_that_of_the_trainer() -> None:
    """KD-SVD bounds its term by another's gradient; in a loop that is a factor of the loss."""
    teacher, samples = own(6, seed=5).eval(), NORMALISE(data().labelled)
    student = own().eval()
    # The weight makes the bound bite.
    method = distil(parse_method("kd-svd", {"svd_weight": 1e4}), student, teacher, samples, steps=8)
    term = next(term for term in method.objective.terms if term.bounded_by)
    assert method.teacher is not None
    batch = Batch(
        samples[:0], data().labels[:0], samples, method.teacher.answer(samples), data().labels
    )
    parameters = [*student.parameters(), *method.parameters()]
    losses = method.objective.losses("student", method.objective.observe(student, batch), batch)
    assert term.name in losses
    method.objective.backward(losses, parameters)
    expected = [None if p.grad is None else p.grad.clone() for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    losses = method.objective.losses("student", method.objective.observe(student, batch), batch)
    loss = method.objective.total(losses, parameters)
    assert loss < sum(losses.values())
    loss.backward()  # type: ignore[no-untyped-call]
    for parameter, gradient in zip(parameters, expected, strict=True):
        if gradient is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_a_run_cut_in_the_middle_goes_on_exactly(tmp_path: Path) -> None:
    part = data()
    whole = own()
    method = bound("ktan", whole, part, steps=8)
    steps(whole, method, optimiser_of(whole, method), batches(part), range(8))

    cut = own()
    begun = bound("ktan", cut, part, steps=8)
    optimiser = optimiser_of(cut, begun)
    steps(cut, begun, optimiser, batches(part), range(5))
    held: dict[str, Any] = {"student": cut, "method": begun, "optimiser": optimiser}
    torch.save({key: value.state_dict() for key, value in held.items()}, tmp_path / "at.pt")

    torch.manual_seed(99)
    again = own(seed=7)
    resumed = bound("ktan", again, part, steps=8, seed=3)
    optimiser = optimiser_of(again, resumed)
    state = torch.load(tmp_path / "at.pt", weights_only=True)
    held = {"student": again, "method": resumed, "optimiser": optimiser}
    for key, value in held.items():
        value.load_state_dict(state[key])
    assert resumed.step == 5
    steps(again, resumed, optimiser, batches(part), range(5, 8))
    assert same(whole, again)
    assert same(method.objective, resumed.objective)


def one_call(method: Distiller, student: nn.Module, part: TrainingData) -> Tensor:
    batch = batches(part).batch(0)
    loss: Tensor = method(student, (batch.answered, None), batch.answers)
    return loss


def test_the_discriminator_moves_in_the_call_and_the_connector_in_the_students_step() -> None:
    part, student = data(), own()
    method = bound("ktan", student, part)
    judges = method.objective.learnables("discriminator")
    ours = list(method.parameters())
    assert ours
    assert judges
    assert not {id(p) for p in ours} & {id(p) for p in judges}
    before = [p.detach().clone() for p in [*judges, *ours]]
    one_call(method, student, part).backward()  # type: ignore[no-untyped-call]
    moved = [not torch.equal(a, b) for a, b in zip(before, [*judges, *ours], strict=True)]
    assert all(moved[: len(judges)])
    assert not any(moved[len(judges) :])
    assert all(p.grad is not None and p.grad.any() for p in ours)
    # An optimiser that was given everything by mistake finds nothing to do for the judges.
    assert all(p.grad is None and p.requires_grad for p in judges)
    assert set(method.losses) == {"local", "kd", "hint", "adversarial", "discriminator"}


def test_looking_moves_nothing() -> None:
    part, student = data(), own().eval()
    method = bound("ktan", student, part)
    before = {name: value.clone() for name, value in method.objective.state_dict().items()}
    with torch.no_grad():
        one_call(method, student, part)
    method.eval()
    one_call(method, student, part)
    assert method.step == 0
    after = method.objective.state_dict()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    # Power iteration of the spectral norm runs in training mode, gradients or not.
    assert all(name.endswith(("_u", "_v")) for name in moved)


def test_a_network_of_ones_own_teaches_frozen_and_answers_every_batch() -> None:
    part, student, teacher = data(), own(), own(6, seed=5)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    samples = NORMALISE(part.labelled)
    method = distil("soft-logits", student, teacher, samples)
    loss = method(student, (samples, part.labels))
    loss.backward()
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    with torch.no_grad():
        expected = torch.softmax(teacher(samples) / SoftLogits().temperature, dim=1)
    assert method.teacher is not None
    answered = method.teacher.answer_step(samples, 0)
    torch.testing.assert_close(answered["probabilities@T=4"], expected)


def test_ktan_of_a_network_of_ones_own_trains_its_teacher_to_student_layer() -> None:
    part, student = data(), own()
    samples = NORMALISE(part.labelled)
    method = distil(KTAN(), student, own(6, seed=5), samples, labels=part.labels)
    (tsl,) = [tap for tap in method.taps.values() if tap.kind == "tsl"]
    # The last map of `student`, where the activation is called and has no path.
    assert tsl.shape == (8, 4, 4)
    method(student, (samples, part.labels)).backward()
    assert student.second.weight.grad is not None
    assert student.second.weight.grad.any()


def test_stages_follow_the_calls() -> None:
    part, student, teacher = data(), own(), own(6, seed=5)
    samples = NORMALISE(part.labelled)
    with pytest.raises(UserError, match="steps=N"):
        distil("fitnet-two-stage", student, teacher, samples)
    method = distil("fitnet-two-stage", student, teacher, samples, steps=4)
    seen = []
    for _ in range(6):
        first = method.stage.name
        method(student, (samples, part.labels))
        seen.append((first, "local" in method.losses))
    share = method.objective.stages[0].share
    begins = round(4 * share)
    names = [stage.name for stage in method.objective.stages]
    # Calls after the last step stay in the last stage.
    assert seen == [(names[0], False)] * begins + [(names[1], True)] * (6 - begins)


def test_raw_samples_are_normalised_and_reduced_precision_reaches_the_pass_alone() -> None:
    part, student = data(), own().eval()
    assert part.answered is not None
    raw = distil("ktan", student, Stored(), part.answered, part.answers, normalise=NORMALISE)
    ready = bound("ktan", student, part)
    answers = dict(part.answers)
    one = raw(student, (part.answered, None), answers)
    two = ready(student, (NORMALISE(part.answered), None), answers)
    assert one.item() == two.item()
    with torch.autocast("cpu", torch.bfloat16):
        third = bound("ktan", student, part)(student, (NORMALISE(part.answered), None), answers)
    assert third.dtype == torch.float32
    assert third.item() == pytest.approx(two.item(), rel=0.05)
    assert third.item() != two.item()


def test_a_method_moves_with_its_optimisers_and_its_teacher() -> None:
    """In float64, which a test without a GPU can tell from float32."""
    part, student = data(), own()
    method = bound("ktan", student, part)
    one_call(method, student, part)
    method.to(torch.float64)
    (optimiser,) = method._optimisers.values()
    slots = [slot for state in optimiser.state.values() for slot in state.values() if slot.ndim]
    assert slots
    assert all(slot.dtype == torch.float64 for slot in slots)
    teacher = own(6, seed=5)
    live = distil("soft-logits", own(), teacher, NORMALISE(part.labelled))
    live.to("meta")
    assert next(teacher.parameters()).device.type == "meta"


class Headless(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 3, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_what_cannot_be_is_said_with_what_to_do() -> None:
    part, student = data(), own()
    assert part.answered is not None
    samples, labels = NORMALISE(part.answered), part.answered_labels
    with pytest.raises(UserError, match="give answers="):
        distil("ktan", student, Stored(), samples)
    method = distil("ktan", student, Stored(), samples, part.answers)
    with pytest.raises(UserError, match="without answers of probabilities, hint"):
        method(student, (samples, labels))
    with pytest.raises(UserError, match="labelled="):
        method(student, (samples[:3], None), part.answers)
    with pytest.raises(UserError, match="3 classes apart, the student 7"):
        distil("soft-logits", nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), Stored(), samples)
    with pytest.raises(UserError, match="attention"):
        distil("at", student, Stored(), samples, part.answers)
    with pytest.raises(UserError, match="views="):
        distil("fixmatch", student, None, samples)(student, (samples, labels))
    with pytest.raises(UserError, match="does not end in a linear layer"):
        distil("ktan", Headless(), Stored(), samples, part.answers)
    # With a path, or with a method that looks at no feature, it need not.
    distil("soft-logits", Headless(), Stored(), samples)
    chosen = distil("ktan", Headless(), Stored(), samples, part.answers, paths={"hint": "0"})
    assert chosen.objective.paths == ("0",)


def test_only_what_a_method_needs_is_looked_for_in_the_student() -> None:
    part = data()
    # It has nowhere to imitate the hint that is among the answers, and need not.
    assert part.answered is not None
    method = distil("soft-logits", Headless(), Stored(), part.answered, part.answers)
    assert set(method.taps) == {"probabilities"}


def test_unlabelled_views_and_methods_that_ask_nobody() -> None:
    part, student = data(), own()
    samples = NORMALISE(part.labelled)
    method = distil("fixmatch", student, None, samples)
    loss = method(student, (samples, part.labels), views=(samples, samples.flip(-1)))
    assert set(method.losses) == {"local", "consistency"}
    alone = distil("local", student.eval(), None, samples)(student, (samples, part.labels))
    expected = nn.functional.cross_entropy(student(samples), part.labels)
    torch.testing.assert_close(alone, expected)
    assert loss.isfinite()


def test_same_seed_same_modules_whatever_was_drawn_before() -> None:
    part, student = data(), own()
    torch.manual_seed(1)
    one = bound("ktan", student, part)
    torch.manual_seed(2)
    kept = torch.get_rng_state()
    two = bound("ktan", student, part)
    assert torch.equal(torch.get_rng_state(), kept)
    other = bound("ktan", student, part, seed=1)
    assert same(one.objective, two.objective)
    assert not same(one.objective, other.objective)
