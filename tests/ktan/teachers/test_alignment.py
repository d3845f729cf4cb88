"""Alignment finds the rotation, takes the reference's own directions, and keeps teachers apart."""

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.decomposition import PCA

from ktan.teachers import Alignment, Frame

N, D, M = 200, 12, 4


@pytest.fixture
def reference():
    generator = torch.Generator().manual_seed(1)
    spread = torch.linspace(3, 0.2, D)
    return torch.randn(N, D, generator=generator) * spread + 5


def rotated(features, seed, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(D, D, generator=generator))
    return scale * features @ turn + shift


def test_a_turned_scaled_and_shifted_copy_comes_back_to_the_reference(reference):
    frame = Frame.of(reference, M)
    copies = torch.stack([rotated(reference, seed, 0.1 * 7**seed, seed) for seed in range(3)])
    aligned = frame.align(copies)(copies)
    assert aligned.shape == (3, N, M)
    for teacher in aligned:
        torch.testing.assert_close(teacher, frame.reduced, rtol=1e-4, atol=1e-4)


def test_the_rotation_is_that_of_scipy_and_the_directions_those_of_scikit_learn(reference):
    generator = torch.Generator().manual_seed(2)
    teacher = rotated(reference, 5) + torch.randn(N, D, generator=generator)
    frame = Frame.of(reference, M)
    ours = frame.align(teacher[None])(teacher[None])[0].numpy()

    centred = (teacher - teacher.mean(0)).double().numpy()
    target = (reference - reference.mean(0)).double().numpy()
    turn, _ = scipy.linalg.orthogonal_procrustes(centred, target)
    scale = np.linalg.norm(target) / np.linalg.norm(centred)
    pca = PCA(M, svd_solver="full").fit(target)
    theirs = scale * centred @ turn @ pca.components_.T
    signs = np.sign((ours * theirs).sum(axis=0))  # a direction and its opposite are one
    np.testing.assert_allclose(ours, theirs * signs, rtol=1e-3, atol=1e-3)


def test_teachers_that_share_what_they_know_agree_only_once_aligned(reference):
    generator = torch.Generator().manual_seed(3)
    teachers = torch.stack(
        [
            rotated(reference, seed) + 0.3 * torch.randn(N, D, generator=generator)
            for seed in range(8)
        ]
    )
    aligned = Frame.of(reference, M).align(teachers)(teachers)
    assert pairwise_cosine(aligned) > 0.95
    assert pairwise_cosine((teachers - teachers.mean(1, keepdim=True))[..., :M]) < 0.3


def test_no_teacher_has_a_say_in_anothers_map_and_a_broken_one_gets_none(reference):
    teachers = torch.stack([rotated(reference, seed) for seed in range(4)])
    frame = Frame.of(reference, M)
    before = frame.align(teachers)
    for poison in (float("nan"), float("inf"), 1e30):
        broken = teachers.clone()
        broken[1] = poison
        after = frame.align(broken)
        others = [0, 2, 3]
        assert torch.equal(before.matrix[others], after.matrix[others])
        assert torch.equal(before.centre[others], after.centre[others])
        assert not after.matrix[1].any()


def test_features_as_large_as_float32_allows_are_aligned_like_others(reference):
    frame = Frame.of(reference, M)
    huge = rotated(reference, 9) * 1e36
    aligned = frame.align(huge[None])(huge[None])[0]
    torch.testing.assert_close(aligned, frame.reduced, rtol=1e-3, atol=1e-2)


def test_all_dimensions_keep_the_norm(reference):
    frame = Frame.of(reference, None)
    assert frame.directions.shape == (D, D)
    centred = reference - reference.mean(0)
    torch.testing.assert_close(frame.reduced.norm(dim=1), centred.norm(dim=1), rtol=1e-4, atol=1e-4)


def test_a_frame_needs_finite_features_of_two_samples(reference):
    with pytest.raises(ValueError, match="two public samples"):
        Frame.of(reference[:1], M)
    with pytest.raises(ValueError, match="finite"):
        Frame.of(reference * float("inf"), M)
    with pytest.raises(ValueError, match="fit"):
        Frame.of(reference, M).align(torch.zeros(2, N, D + 1))


def test_fewer_samples_than_dimensions_still_give_a_frame(reference):
    few = reference[:5]
    frame = Frame.of(few, M)
    aligned = frame.align(few[None])(few[None])[0]
    torch.testing.assert_close(aligned, frame.reduced, rtol=1e-3, atol=1e-3)


def test_stacking_is_in_order():
    parts = [Alignment(torch.full((1, D), float(i)), torch.zeros(1, D, M)) for i in range(3)]
    assert Alignment.stack(parts).centre[:, 0].tolist() == [0, 1, 2]


def pairwise_cosine(vectors):
    """Mean cosine of different teachers' vectors [k, n, m] for the same sample."""
    unit = vectors / vectors.norm(dim=2, keepdim=True).clamp_min(1e-9)
    k = len(unit)
    total = unit.sum(0).square().sum(-1)
    return float(((total - k) / (k * (k - 1))).mean())
