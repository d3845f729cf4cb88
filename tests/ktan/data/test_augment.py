"""Views are what a slow loop over images gives, keep their type, and repeat with the seed."""

import pytest
import torch
from torch import Tensor

from ktan.data.augment import Augment
from ktan.errors import UserError


def images(count: int = 300, channels: int = 3, side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (count, channels, side, side), generator=generator).byte()


def windows(image: Tensor, reach: int) -> list[Tensor]:
    """Every shift of one image by up to `reach` pixels, the rest black."""
    side = image.shape[-1]
    found = []
    for down in range(-reach, reach + 1):
        for across in range(-reach, reach + 1):
            moved = torch.zeros_like(image)
            moved[:, max(0, down) : side + min(0, down), max(0, across) : side + min(0, across)] = (
                image[
                    :, max(0, -down) : side - max(0, down), max(0, -across) : side - max(0, across)
                ]
            )
            found.append(moved)
    return found


def test_shift_gives_every_shift_and_nothing_else() -> None:
    samples = images()
    views = Augment("shift")(samples, torch.Generator().manual_seed(0))
    seen = set()
    for sample, view in zip(samples, views, strict=True):
        matches = [place for place, one in enumerate(windows(sample, 2)) if torch.equal(one, view)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert (
        len(seen) == 25
    )  # 300 draws miss one of 25 with a chance of 1.2e-4, and the seed is fixed


def test_crop_flip_mirrors_half() -> None:
    samples = images()
    views = Augment("crop-flip")(samples, torch.Generator().manual_seed(0))
    mirrored = 0
    for sample, view in zip(samples, views, strict=True):
        plain = any(torch.equal(one, view) for one in windows(sample, 2))
        flipped = any(torch.equal(one, view) for one in windows(sample.flip(2), 2))
        assert plain != flipped
        mirrored += flipped
    assert 90 < mirrored < 210  # 150 expected, sd 8.7


def test_affine_stays_near_the_image() -> None:
    ramp = torch.arange(28).float().expand(64, 1, 28, 28)
    views = Augment("affine")(ramp, torch.Generator().manual_seed(0))
    middle = views[:, 0, 14, 14]
    # The centre moves by at most an eighth of 28 pixels.
    assert (middle - 14).abs().max() <= 3.5 + 0.51
    assert middle.std() > 1
    # Along the ramp a step stays 1 pixel over the width's scale, within rotation and shear.
    slope = views[:, 0, 14, 15] - middle
    assert slope.min() > 0.75
    assert slope.max() < 1.25


ANY_TYPE = [
    (name, dtype)
    for name in ("none", "shift", "crop-flip", "affine")
    for dtype in (torch.uint8, torch.float32)
]


@pytest.mark.parametrize(("name", "dtype"), [*ANY_TYPE, ("strong", torch.uint8)])
def test_type_shape_and_seed(name: str, dtype: torch.dtype) -> None:
    samples = images(20).to(dtype)
    before = samples.clone()
    augment = Augment(name)  # type: ignore[arg-type]
    one, same, other = (augment(samples, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert one.dtype == dtype
    assert one.shape == samples.shape
    assert torch.equal(one, same)
    assert torch.equal(one, other) == (name == "none")
    assert torch.equal(samples, before)


def test_mistakes() -> None:
    with pytest.raises(UserError, match="no augmentation"):
        Augment("cutout")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="needs images"):
        Augment("shift")(torch.zeros(4, 7), torch.Generator())
    with pytest.raises(UserError, match="uint8"):
        Augment("strong")(torch.zeros(4, 3, 8, 8), torch.Generator())
    assert Augment("none")(torch.zeros(4, 7), torch.Generator()).shape == (4, 7)
