"""KD-SVD's loss: by numpy's SVD, by public code, and what its gradient does at equal values."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from ktan.losses import singular_vector_loss
from ktan.losses.singular_vectors import (
    aligned,
    first_singular_vector,
    right_singular_vectors,
)
from tests.ktan.methods.references import inputs, reference


def maps(seed: int, shapes: tuple[tuple[int, ...], ...] = ((5, 4, 4), (6, 3, 3))) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, *shape, generator=generator).relu() for shape in shapes]


def numpys(student: list[Tensor], teacher: list[Tensor], k: int) -> float:
    """The same loss by a full SVD of each sample, vector by vector."""
    total = 0.0
    for sample in range(len(student[0])):
        nodes = []
        for one, other in zip(student, teacher, strict=True):
            _, sizes, theirs = np.linalg.svd(other[sample].flatten(1).double().numpy().T)
            _, _, mine = np.linalg.svd(one[sample].flatten(1).double().numpy().T)
            scale = sizes[:k] / np.linalg.norm(sizes[:k])
            chosen = []
            for vector, size in zip(theirs[:k], scale, strict=True):
                vector = vector * (1 if vector.sum() >= 0 else -1)
                cosines = mine[: k + 3] @ vector
                best = int(np.abs(cosines).argmax())
                chosen.append((np.sign(cosines[best]) * mine[best] * size, vector * size))
            nodes.append(chosen)
        for before, after in itertools.pairwise(nodes):
            for (s1, t1), (s2, t2) in zip(before, after, strict=True):
                r_s = np.exp(-np.square(np.subtract.outer(s2, s1)) / 8)
                r_t = np.exp(-np.square(np.subtract.outer(t2, t1)) / 8)
                total += np.square(r_s - r_t).sum()
    return total / len(student[0])


@pytest.mark.parametrize("vectors", [1, 2])
def test_it_is_numpys(vectors: int) -> None:
    student, teacher = maps(0), maps(1)
    found = singular_vector_loss(student, teacher, vectors).item()
    assert found == pytest.approx(numpys(student, teacher, vectors), rel=1e-4)


def test_value_and_gradient_are_those_of_public_code() -> None:
    given = inputs()
    student = [given[f"student_map_{i}"].requires_grad_() for i in (1, 2, 3)]
    loss = singular_vector_loss(student, [given[f"teacher_map_{i}"] for i in (1, 2, 3)])
    loss.backward()
    expected = reference("kd-svd", "RepDistiller", signs="positive")
    assert loss.item() == pytest.approx(expected.value, rel=1e-4)
    for number, leaf in enumerate(student, start=1):
        assert leaf.grad is not None
        norm = expected.gradient_norms[f"student_map_{number}"]
        assert leaf.grad.norm().item() == pytest.approx(norm, rel=1e-3)


def test_equal_maps_have_no_loss_and_other_sizes_and_scales_do_not_matter() -> None:
    teacher = maps(1)
    assert singular_vector_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-9)
    # Twice the map, and a map that says each position twice: the same right singular vectors.
    student = [torch.cat([2 * each, 2 * each], dim=2) for each in teacher]
    assert singular_vector_loss(student, teacher).item() == pytest.approx(0, abs=1e-9)


def test_the_gradient_is_torchs_own_where_eigenvalues_lie_apart() -> None:
    feature = maps(2)[0].double()
    target = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))

    def gradient(own: bool) -> Tensor:
        leaf = feature.float().requires_grad_()
        if own:
            found, _ = right_singular_vectors(leaf, 2)
        else:
            rows = leaf.flatten(2)
            found = torch.linalg.eigh(rows @ rows.transpose(1, 2))[1][:, :, -2:].flip(2)
        # Squared: whatever the sign.
        (found.square() * target).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    torch.testing.assert_close(gradient(own=True), gradient(own=False), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("twins", ["equal", "nearly equal", "dead"])
def test_equal_singular_values_leave_the_gradient_small(twins: str) -> None:
    """Two orthogonal channels of one energy: torch's own gradient is infinite or huge."""
    feature = torch.zeros(3, 4, 2, 2)
    if twins != "dead":
        feature[:, 0, 0, 0] = 1.0
        feature[:, 1, 1, 1] = 1.0 if twins == "equal" else 1.0 + 1e-6
        feature[:, 2, 0, 1] = 0.3
    leaf = feature.requires_grad_()
    teacher = maps(3, ((4, 2, 2), (4, 2, 2)))
    loss = singular_vector_loss([leaf, leaf], teacher)
    loss.backward()
    assert leaf.grad is not None
    assert bool(leaf.grad.isfinite().all())
    assert leaf.grad.abs().max() < 100


def test_a_vector_of_the_student_is_the_closest_one_on_the_same_side() -> None:
    teacher = torch.eye(3)[:, :2][None]
    student = torch.tensor([[[0.0, -1.0], [1.0, 0.0], [0.0, 0.0]]])
    expected = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    assert torch.equal(aligned(student, teacher), expected)


def test_it_is_computed_in_float32_under_autocast() -> None:
    student, teacher = maps(0), maps(1)
    expected = singular_vector_loss(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(singular_vector_loss(student, teacher), expected)


def test_a_student_that_diverged_does_not_stop_the_algorithm() -> None:
    student, teacher = maps(0), maps(1)
    student[0][0, 0, 0, 0] = float("inf")
    student[1][1, 0, 0, 0] = float("nan")
    assert singular_vector_loss(student, teacher).isfinite()


def test_the_first_vector_alone_is_that_of_the_whole_decomposition() -> None:
    for feature in maps(5, ((16, 6, 6), (40, 5, 5), (5, 1, 2))):
        found = first_singular_vector(feature)
        assert found.shape == (3, feature.shape[1], 1)
        for sample, vector in zip(feature, found, strict=True):
            _, _, rows = np.linalg.svd(sample.flatten(1).double().numpy().T)
            assert abs(float(rows[0] @ vector[:, 0].double().numpy())) == pytest.approx(1, abs=1e-6)


def test_a_map_of_nothing_has_no_first_vector() -> None:
    assert not first_singular_vector(torch.zeros(1, 4, 2, 2)).any()
