"""Derived taps against their definitions, written out by loops."""

import numpy as np
import torch

from ktan.derivation import attention_map, flow_products, resized, sign_pattern


def test_attention_is_the_normalised_mean_of_squares() -> None:
    feature = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    found = attention_map(feature).numpy()
    for row, maps in zip(found, feature.numpy(), strict=True):
        energy = np.zeros((4, 5))
        for channel in maps:
            energy += channel**2 / 3
        np.testing.assert_allclose(row, energy / np.sqrt((energy**2).sum()), rtol=1e-5)


def test_attention_ignores_the_order_and_sign_of_channels_and_the_scale() -> None:
    feature = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    mixed = -3 * feature[:, [4, 1, 0, 5, 3, 2]]
    torch.testing.assert_close(attention_map(mixed), attention_map(feature))


def test_attention_on_a_grid_has_unit_norm_and_a_zero_map_stays_zero() -> None:
    feature = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    found = attention_map(feature, (2, 2))
    energy = feature.square().mean(dim=1).reshape(2, 2, 4, 2, 4).mean(dim=(2, 4))
    torch.testing.assert_close(found, energy / energy.flatten(1).norm(dim=1)[:, None, None])
    assert attention_map(torch.zeros(1, 3, 4, 4)).abs().sum() == 0


def test_signs_tell_the_side_of_the_boundary() -> None:
    feature = torch.tensor([[[[-1.0, 0.0], [1e-9, 5.0]]]])
    assert sign_pattern(feature).tolist() == [[[[-1, -1], [1, 1]]]]


def test_products_sum_over_positions() -> None:
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(2, 3, 4, 4, generator=generator)
    second = torch.randn(2, 5, 2, 2, generator=generator)
    pooled = first.reshape(2, 3, 2, 2, 2, 2).mean(dim=(3, 5))
    expected = np.zeros((2, 3, 5))
    for row in range(2):
        for one in range(3):
            for two in range(5):
                expected[row, one, two] = (pooled[row, one] * second[row, two]).sum() / 4
    np.testing.assert_allclose(flow_products(first, second), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        flow_products(second, first), expected.transpose(0, 2, 1), rtol=1e-5, atol=1e-6
    )


def test_resizing_keeps_what_fits_averages_down_and_keeps_the_mean_up() -> None:
    feature = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert resized(feature, (4, 4)) is feature
    assert resized(feature, (1, 1)).item() == 7.5
    torch.testing.assert_close(
        resized(torch.full((1, 1, 2, 2), 3.0), (5, 5)), torch.full((1, 1, 5, 5), 3.0)
    )


def test_a_students_attention_has_the_value_and_the_gradient_of_the_formula() -> None:
    feature = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(3)).double()
    target = torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(4)).double()
    leaf, plain = (feature.clone().requires_grad_() for _ in range(2))
    energy = resized(plain.square().mean(dim=1, keepdim=True), (2, 2)).flatten(1)
    expected = (energy / energy.norm(dim=1, keepdim=True)).reshape(2, 2, 2)
    found = attention_map(leaf, (2, 2))
    torch.testing.assert_close(found, expected)
    (found * target).sum().backward()
    (expected * target).sum().backward()
    torch.testing.assert_close(leaf.grad, plain.grad)
    half = feature.bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert attention_map(half).dtype == torch.float32
