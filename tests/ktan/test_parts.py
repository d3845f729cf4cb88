import pytest
import torch
from torch import Tensor

from ktan import parts as parts_module
from ktan.hints import HintScale
from ktan.parts import mean_over, parts
from ktan.teacher import AnswerTap
from tests.ktan.only_rows import OnlyRows


@pytest.fixture
def hundred_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "LIMIT", 100)


@pytest.mark.usefixtures("hundred_bytes")
def test_all_rows_are_read_in_order_and_no_part_is_above_the_limit() -> None:
    one, other = torch.arange(70.0).view(10, 7), torch.arange(10)
    read = list(parts(one, other))
    # 28 and 8 bytes a row.
    assert [len(part) for part, _ in read] == [2, 2, 2, 2, 2]
    assert torch.equal(torch.cat([part for part, _ in read]), one)
    assert torch.equal(torch.cat([part for _, part in read]), other)
    # A row above the limit comes alone.
    assert [len(part) for (part,) in parts(torch.zeros(3, 50))] == [1, 1, 1]
    assert list(parts(torch.zeros(0, 5))) == []


@pytest.mark.usefixtures("hundred_bytes")
def test_a_mean_over_parts_weighs_each_by_its_rows() -> None:
    values = torch.cat([torch.zeros(25), torch.ones(1)])
    assert mean_over(torch.mean, values).item() == pytest.approx(1 / 26)
    with pytest.raises(ValueError, match="no row"):
        mean_over(torch.mean, values[:0])


def in_one_piece(answers: Tensor) -> tuple[Tensor, float]:
    """Centre and scale of all answers at once, as students were taught with before there were
    parts: a run that was begun then goes on with the same."""
    over = tuple(d for d in range(answers.ndim) if d != 1)
    centre = answers.mean(dim=over, keepdim=True)[0]
    return centre, float((answers - centre).square().mean().sqrt())


@pytest.mark.parametrize("shape", [(9,), (4, 5, 3)])
def test_the_scale_of_what_is_one_part_is_that_of_all_answers_bit_for_bit(
    shape: tuple[int, ...],
) -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (1, 2, 37, 4001):
        answers = 3 + 7 * torch.randn(count, *shape, generator=generator)
        centre, scale = in_one_piece(answers)
        rows = OnlyRows(answers, most=count)
        found = HintScale.of(AnswerTap("hint", "hint", shape), rows)
        assert torch.equal(found.centre, centre)
        assert found.scale == (scale or 1.0)


@pytest.mark.parametrize("shape", [(9,), (4, 5, 3)])
def test_the_scale_of_several_parts_is_that_of_all_answers_up_to_rounding(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "LIMIT", 8 * 4 * torch.Size(shape).numel())
    generator = torch.Generator().manual_seed(0)
    answers = 3 + 7 * torch.randn(101, *shape, generator=generator)
    found = HintScale.of(AnswerTap("hint", "hint", shape), OnlyRows(answers, most=8))
    centre, scale = in_one_piece(answers.double())
    torch.testing.assert_close(found.centre, centre.float(), rtol=1e-6, atol=1e-6)
    assert found.scale == pytest.approx(scale, rel=1e-6)
    assert found.centre.dtype == torch.float32
