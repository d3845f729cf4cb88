"""A teacher that answers each view as it is drawn."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ktan.data import Normalisation
from ktan.errors import UserError
from ktan.networks import NetworkSpec, build
from ktan.taps import parse_taps
from ktan.teachers.live import LiveTeacher

SPEC = NetworkSpec("resnet8", (3, 8, 8), 4, {"widths": [2, 2, 3, 4]})
NORMALISE = Normalisation((120.0,) * 3, (60.0,) * 3)
TAPS = parse_taps(
    [
        "probabilities@T=2",
        "logits",
        "hint=features",
        "hint=features.layer2:map",
        "attention=features.layer1:4",
        "signs=features.layer3.0.relu.input",
        "products=features.layer1,features.layer2",
    ]
)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build(SPEC)


def teacher(count: int = 1, **options: object) -> LiveTeacher:
    networks = [network(seed) for seed in range(count)]
    return LiveTeacher(networks, SPEC, NORMALISE, TAPS, precision="float32", **options)  # type: ignore[arg-type]


def samples(count: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, 8, 8), generator=generator).to(torch.uint8)


def test_it_answers_what_the_network_says_of_a_normalised_sample() -> None:
    own = network(0).eval()
    with torch.no_grad():
        logits = own(NORMALISE(samples()))
        middle = own.features[:3](NORMALISE(samples()))
    answers = teacher().answer(samples())
    torch.testing.assert_close(answers["logits"], logits)
    torch.testing.assert_close(answers["probabilities"], torch.softmax(logits / 2, dim=1))
    torch.testing.assert_close(answers["hint.features.layer2"], middle)


def test_shapes_are_those_of_the_answers_and_nothing_is_noisy() -> None:
    live = teacher()
    answers = live.answer(samples())
    assert {name: tap.shape for name, tap in live.taps.items()} == {
        name: tuple(value.shape[1:]) for name, value in answers.items()
    }
    assert live.taps["attention"].shape == (4, 4)
    assert live.taps["products"].shape == (2, 3)
    assert all(tap.noise_sd == 0 for tap in live.taps.values())
    assert live.taps["probabilities"].temperature == 2


def test_several_answer_by_their_mean() -> None:
    one, two = teacher(1).answer(samples()), teacher(2).answer(samples())
    other = LiveTeacher([network(1)], SPEC, NORMALISE, TAPS, precision="float32").answer(samples())
    for name, value in two.items():
        torch.testing.assert_close(value, (one[name] + other[name]) / 2)


def test_one_that_is_drawn_answers_alone_and_the_same_at_the_same_step() -> None:
    live = teacher(2, draw="one", seed=7)
    alone = [
        LiveTeacher([network(seed)], SPEC, NORMALISE, TAPS, precision="float32").answer(samples())
        for seed in range(2)
    ]
    drawn = []
    for step in range(20):
        answer = live.answer_step(samples(), step)["logits"]
        who = [torch.allclose(answer, candidate["logits"], atol=1e-5) for candidate in alone]
        assert sum(who) == 1
        drawn.append(who.index(True))
        assert torch.equal(answer, live.answer_step(samples(), step)["logits"])
    assert set(drawn) == {0, 1}


def test_it_never_learns_and_needs_no_gradient() -> None:
    live = teacher()
    before = {name: value.clone() for name, value in live.networks[0].state_dict().items()}
    answers = live.answer_step(samples(), 0)
    assert not any(value.requires_grad for value in answers.values())
    after = live.networks[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_unknown_paths_and_draws_are_users_mistakes() -> None:
    with pytest.raises(UserError, match="no module 'nowhere'"):
        LiveTeacher([network(0)], SPEC, NORMALISE, parse_taps(["hint=nowhere"]))
    with pytest.raises(UserError, match="draw is 'two'"):
        teacher(draw="two")


def test_there_must_be_a_teachers_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no teacher"):
        LiveTeacher.load(tmp_path, device=torch.device("cpu"), precision="float32")
