"""Normalisation against scikit-learn, and back from JSON."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from ktan.data.normalise import Normalisation
from ktan.errors import UserError


def test_a_table_as_scikit_learn_does_it() -> None:
    table = torch.from_numpy(
        np.random.default_rng(0).normal([5, -300, 0], [0.1, 40, 1e-3], (500, 3)).astype("float32")
    )
    ours = Normalisation.of_public(table)(table)
    theirs = StandardScaler().fit_transform(table.numpy().astype("float64"))
    np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-4)


def test_images_per_channel_in_their_own_unit() -> None:
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    images[:, 2] = 17
    normalisation = Normalisation.of_public(images)
    result = normalisation(images)
    assert result.dtype == torch.float32
    assert result.shape == images.shape
    assert torch.allclose(result.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(result[:, :2].std((0, 2, 3), correction=0), torch.ones(2), atol=1e-5)
    assert normalisation.std[2] == 1.0  # a constant channel is not blown up
    # A float view of the same picture is the same sample.
    assert torch.equal(normalisation(images.float()), result)


def test_neutral_constants_depend_on_no_data() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)
    neutral = Normalisation.neutral(images)
    assert neutral == Normalisation.neutral(torch.zeros_like(images))
    assert neutral(images).unique().tolist() == [-1.0, 1.0]
    table = torch.randn(5, 2)
    assert torch.equal(Normalisation.neutral(table)(table), table)


def test_json_and_mistakes() -> None:
    normalisation = Normalisation((1.5, 2.0), (3.0, 0.25))
    assert Normalisation.from_json(normalisation.to_json()) == normalisation
    for mean, std in [((1.0,), ()), ((), ()), ((1.0,), (0.0,)), ((float("nan"),), (1.0,))]:
        with pytest.raises(UserError, match="normalisation"):
            Normalisation(mean, std)
    with pytest.raises(UserError, match="no public samples"):
        Normalisation.of_public(torch.zeros(0, 3))


def test_first_used_in_inference_then_in_training() -> None:
    normalisation = Normalisation((0.123,), (4.56,))
    with torch.inference_mode():
        normalisation(torch.ones(1, 1, 2, 2))
    samples = torch.ones(1, 1, 2, 2, requires_grad=True)
    normalisation(samples).sum().backward()
    assert samples.grad is not None
    assert torch.allclose(samples.grad, torch.full((1, 1, 2, 2), 1 / 4.56))
