"""Each distortion of a strong view is what Pillow, or a formula, makes of the same image."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from ktan.data.augment import Augment
from ktan.data.randaugment import _OPERATIONS, DRAWS, strong_views

PLAIN = 0.25
"""A chance that keeps a part of the affine map out."""


def picture(channels: int = 3) -> Tensor:
    """uint8 [1, channels, 24, 24], smooth, from 10 to 240."""
    down, across = torch.meshgrid(torch.linspace(0, 1, 24), torch.linspace(0, 1, 24), indexing="ij")
    planes = [10 + 230 * plane for plane in (down, across, (down + across) / 2)[:channels]]
    return torch.stack(planes).round().byte()[None]


def view(
    image: Tensor,
    *,
    second: str = "nothing",
    strength: float = 0.0,
    cut: float = 0.0,
    where: tuple[float, float] = (0.5, 0.5),
    warp: dict[int, float] | None = None,
) -> Tensor:
    """The view of one image under given draws."""
    chance = torch.zeros(DRAWS, 1)
    chance[:6] = PLAIN
    for part, value in (warp or {}).items():
        chance[part] = 0.75
        chance[6 + part] = value
    chance[13] = (_OPERATIONS.index(second) + 0.5) / len(_OPERATIONS)
    chance[15] = strength
    chance[16:19, 0] = torch.tensor([cut, *where])
    return strong_views(image, chance)


def pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image[0].permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


def close(found: Tensor, expected: Tensor, atol: float = 1.01) -> bool:
    return bool(((found.int() - expected.int()).abs() <= atol).all())


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_neutral_draws_leave_the_image_alone(channels: int) -> None:
    image = picture(channels)
    assert torch.equal(view(image), image)


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.99])
def test_pointwise_distortions_are_pillows(strength: float) -> None:
    image, factor = picture(), 0.3 + 1.4 * strength
    brighter = ImageEnhance.Brightness(pillow(image)).enhance(factor)
    assert close(view(image, second="brightness", strength=strength), tensor(brighter))
    contrasted = ImageEnhance.Contrast(pillow(image)).enhance(factor)
    assert close(view(image, second="contrast", strength=strength), tensor(contrasted), 2.01)
    coloured = ImageEnhance.Color(pillow(image)).enhance(2 * strength)
    assert close(view(image, second="saturation", strength=strength), tensor(coloured), 2.01)
    solarised = ImageOps.solarize(pillow(image), int(np.ceil(255 * (0.5 + 0.5 * strength))))
    assert torch.equal(view(image, second="solarise", strength=strength), tensor(solarised))
    posterised = ImageOps.posterize(pillow(image), 8 - int(2 + 4 * strength))
    assert torch.equal(view(image, second="posterise", strength=strength), tensor(posterised))


def test_stretch_fills_the_range_and_sharpness_works_against_the_blur() -> None:
    image = picture()
    full = view(image, second="stretch", strength=0.999)
    assert close(full, tensor(ImageOps.autocontrast(pillow(image))))
    checks = (100 + 40 * ((torch.arange(24)[:, None] + torch.arange(24)) % 2)).byte()
    checks = checks.expand(1, 3, 24, 24)
    spread = {
        s: view(checks, second="sharpness", strength=s).float().std() for s in (0.0, 0.4, 1.0)
    }
    assert spread[0.0] < 0.3 * spread[0.4]
    assert spread[1.0] > 1.5 * spread[0.4]


def test_grey_images_have_no_saturation() -> None:
    image = picture(1)
    assert torch.equal(view(image, second="saturation", strength=0.9), image)


def test_the_hole_is_a_square_of_the_mean() -> None:
    image = picture()
    found = view(image, cut=0.999, where=(0.5, 0.25))
    changed = (found != image).any(dim=1)[0]
    rows, columns = changed.any(dim=1).nonzero()[:, 0], changed.any(dim=0).nonzero()[:, 0]
    # Half of 24 is 12, about row 12 and column 6.
    assert rows.tolist() == list(range(6, 18))
    assert columns.tolist() == list(range(12))
    mean = image.float().mean(dim=(2, 3))[0]
    assert (found[0, :, 12, 6] - mean).abs().max() < 1


def test_the_map_turns_about_the_centre_and_shifts_up_to_an_eighth() -> None:
    image = torch.zeros(1, 1, 25, 25).byte()
    image[..., 12, 4:21] = 200
    turned = view(image, warp={0: 1.0})  # half a radian
    heights = turned[0, 0].float()
    left, right = (heights[:, column].argmax().item() for column in (6, 18))
    assert heights[12, 12] > 150
    assert abs(abs(right - left) - 12 * np.tan(0.5)) <= 1.5
    moved = view(image, warp={5: 1.0})
    assert abs(moved[0, 0, :, 12].float().argmax().item() - 12) in (3, 4)  # 25 / 8 pixels


def test_views_are_strong_and_differ_by_image() -> None:
    images = picture().expand(200, 3, 24, 24)
    views = Augment("strong")(images, torch.Generator().manual_seed(0)).float()
    change = (views - images.float()).abs().mean(dim=(1, 2, 3))
    assert change.quantile(0.05) > 2
    assert len(set(change.tolist())) > 190
    # Nothing is biased to one side: the mean over views stays near the image.
    assert (views.mean(dim=0) - images[0].float()).abs().mean() < 40
