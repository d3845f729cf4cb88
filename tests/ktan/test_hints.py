import pytest
import torch

from ktan.connectors import Connector
from ktan.discriminators import discriminator
from ktan.errors import UserError
from ktan.hints import HintScale
from ktan.teacher import AnswerTap


@pytest.mark.parametrize("shape", [(8,), (4, 5, 5)])
def test_standardised_hints_have_no_mean_and_unit_variance(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    answers = 30 + 7 * torch.randn(200, *shape, generator=generator)
    scale = HintScale.of(AnswerTap("hint", "hint", shape, noise_sd=3.5), answers)
    found = scale.standardise(answers)
    channels = found.transpose(0, 1).flatten(1)
    torch.testing.assert_close(channels.mean(dim=1), torch.zeros(shape[0]), atol=1e-5, rtol=0)
    assert found.square().mean().item() == pytest.approx(1, rel=1e-4)
    assert scale.noise_sd == pytest.approx(0.5, rel=0.05)


def test_constant_or_single_answers_stay_finite() -> None:
    tap = AnswerTap("hint", "hint", (3,))
    assert not HintScale.of(tap, torch.full((4, 3), 2.0)).standardise(torch.full((1, 3), 2.0)).any()
    noisy = HintScale.of(AnswerTap("hint", "hint", (3,), noise_sd=9.0), torch.ones(1, 3))
    assert noisy.noise_sd == 1


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((6,), (4,)), ((6, 5, 5), (4,)), ((6, 8, 8), (4, 4, 4)), ((6, 4, 4), (3, 7, 7))],
)
def test_connector_reaches_the_hints_shape_and_learns(
    student: tuple[int, ...], teacher: tuple[int, ...]
) -> None:
    connector = Connector(student, teacher)
    found = connector(torch.randn(2, *student))
    assert found.shape == (2, *teacher)
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in connector.parameters())


def test_connector_and_discriminator_refuse_what_they_cannot_join() -> None:
    with pytest.raises(UserError, match=r"a student's feature of shape \[5\] to a hint of \[4, 2"):
        Connector((5,), (4, 2, 2))
    with pytest.raises(ValueError, match="no discriminator"):
        discriminator((2, 2))
    with pytest.raises(UserError, match="discriminator_width is 0; it must be at least 1"):
        discriminator((8,), width=0)


@pytest.mark.parametrize(("shape", "scores"), [((8,), (5,)), ((3, 6, 6), (5, 9))])
def test_discriminator_scores_each_sample_on_its_own(
    shape: tuple[int, ...], scores: tuple[int, ...]
) -> None:
    judge = discriminator(shape, width=16).eval()
    hints = torch.randn(5, *shape)
    found = judge(hints)
    assert found.shape == scores
    torch.testing.assert_close(judge(hints[2:3])[0], found[2], rtol=1e-4, atol=1e-5)
