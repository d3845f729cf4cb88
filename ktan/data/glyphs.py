"""`glyphs`: digits rendered from the fonts that matplotlib ships.

Each digit of each font becomes a signed distance field once, at high resolution. A sample is that
field under a random affine map, cut at a random level (the stroke's width), at a random contrast,
with noise. A linear model stays under 90 %, a small convolutional network passes 98 %.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ktan.data.dataset import Dataset
from ktan.errors import UserError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGE = 28
DEFAULT_SIZE = 72_000

_FIELD = 64  # side of a distance field
_DIGIT = 40  # height of a digit within it
_BLOCK = 4096  # samples that share one seed: a larger data set begins with the smaller one
_SEED = 1806
_VERSION = 2  # of the cached files; raise it when the same seed gives other images


@dataclass(frozen=True)
class Distortion:
    """How far a digit strays from its font; each range is uniform and symmetric.

    The defaults were measured (docs/data.md): what one model learns from few samples stays far
    below what many models know together, which is what distillation needs to show anything.
    """

    rotation: float = 0.25
    """Radians."""
    scale: float = 0.2
    """Relative, of each axis."""
    shear: float = 0.25
    """Horizontal shift per height."""
    shift: float = 0.06
    """Share of the image's side, of each axis."""
    stroke: float = 1.0
    """Pixels of the 64 x 64 field by which the outline grows or shrinks."""
    noise: float = 0.25
    """Standard deviation, of white = 1."""
    contrast: float = 0.4
    """How much darker than white a digit's ink may be."""


def load_glyphs(data_root: Path, size: int | None = None) -> Dataset:
    """`size` (72,000 by default) digits uint8 [1, 28, 28], made once and memory-mapped after.

    The first n samples are the same whatever the size. There is no official test part.
    """
    count = DEFAULT_SIZE if size is None else size
    if count < 1:
        raise UserError(f"--size is {count}; at least one glyph is needed")
    folder = data_root / "glyphs"
    samples_file = folder / f"v{_VERSION}-{count}-samples.npy"
    labels_file = folder / f"v{_VERSION}-{count}-labels.npy"
    if not (samples_file.exists() and labels_file.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        samples, labels = render(count)
        save_whole(samples_file, samples.numpy())
        save_whole(labels_file, labels.numpy())
    # Copy-on-write: pages come from the file, and nothing is ever written back to it.
    mapped = np.load(samples_file, mmap_mode="c", allow_pickle=False)
    return Dataset(
        name="glyphs",
        classes=DIGITS,
        samples=torch.from_numpy(mapped),
        labels=torch.from_numpy(np.load(labels_file, allow_pickle=False)),
        unit_ids=np.arange(count, dtype=np.int64),
        holdout=torch.zeros(count, dtype=torch.bool),
        location=folder,
        published=True,
    )


def render(
    count: int, seed: int = _SEED, distortion: Distortion | None = None
) -> tuple[Tensor, Tensor]:
    """Makes the first `count` samples of a seed.

    Returns uint8 [count, 1, 28, 28] (ink is bright) and int64 labels [count].
    """
    distortion = distortion or Distortion()
    fields = distance_fields()
    samples = torch.empty(count, 1, IMAGE, IMAGE, dtype=torch.uint8)
    labels = torch.empty(count, dtype=torch.int64)
    for start in range(0, count, _BLOCK):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + start // _BLOCK)
        images, digits = _render_block(fields, generator, distortion)
        here = min(_BLOCK, count - start)
        samples[start : start + here] = images[:here]
        labels[start : start + here] = digits[:here]
    return samples, labels


def _render_block(
    fields: Tensor, generator: torch.Generator, distortion: Distortion
) -> tuple[Tensor, Tensor]:
    def uniform(spread: float) -> Tensor:
        return spread * (2 * torch.rand(_BLOCK, generator=generator) - 1)

    fonts, digits = fields.shape[:2]
    labels = torch.randint(digits, (_BLOCK,), generator=generator)
    font = torch.randint(fonts, (_BLOCK,), generator=generator)
    angle = uniform(distortion.rotation)
    width = 1 + uniform(distortion.scale)
    height = 1 + uniform(distortion.scale)
    shear = uniform(distortion.shear)
    across, down = uniform(2 * distortion.shift), uniform(2 * distortion.shift)
    stroke = uniform(distortion.stroke)
    ink = 1 - distortion.contrast * torch.rand(_BLOCK, generator=generator)
    noise = torch.randn(_BLOCK, IMAGE, IMAGE, generator=generator)

    # affine_grid wants the map from the output's coordinates to the input's.
    cos, sin = angle.cos(), angle.sin()
    rows = torch.stack(
        [
            torch.stack([cos / width + shear * sin, -sin / width + shear * cos, across], dim=1),
            torch.stack([sin / height, cos / height, down], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(rows, [_BLOCK, 1, IMAGE, IMAGE], align_corners=False)
    distance = F.grid_sample(
        fields[font, labels].unsqueeze(1), grid, padding_mode="border", align_corners=False
    ).squeeze(1)
    # The outline is where the distance is zero; it blurs over one pixel of the image.
    coverage = (0.5 + (stroke[:, None, None] - distance) * (IMAGE / _FIELD)).clamp_(0, 1)
    images = coverage * ink[:, None, None] + distortion.noise * noise
    return (255 * images.clamp_(0, 1)).round_().to(torch.uint8).unsqueeze(1), labels


@lru_cache(maxsize=1)
def distance_fields() -> Tensor:
    """float32 [fonts, 10, 64, 64]: distance to a digit's outline in field pixels, inside negative.

    Every digit is centred and 40 pixels high. Fonts whose digits are not the ten lining figures
    are left out, judged by the names of their glyphs: symbols, old-style figures, placeholders.
    """
    from scipy.ndimage import distance_transform_edt

    over = 4  # the outline is drawn this many times larger than its field
    fields = []
    for path in _digit_fonts():
        for digit in range(10):
            inside = _draw(path, str(digit), over * _FIELD, over * _DIGIT)
            distance = distance_transform_edt(~inside) - distance_transform_edt(inside)
            fields.append(torch.from_numpy(distance).to(torch.float32))
    stack = torch.stack(fields).view(-1, 10, over * _FIELD, over * _FIELD)
    return F.avg_pool2d(stack, over) / over


def _digit_fonts() -> list[Path]:
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    chosen = []
    for path in sorted(folder.glob("*.ttf")):
        font = FT2Font(str(path))
        characters = font.get_charmap()
        glyphs = [characters[code] for code in range(ord("0"), ord("9") + 1) if code in characters]
        if tuple(font.get_glyph_name(glyph) for glyph in glyphs) == DIGITS:
            chosen.append(path)
    if not chosen:
        raise UserError(f"no font in {folder} has the ten digits; reinstall matplotlib")
    return chosen


def _draw(path: Path, character: str, side: int, height: int) -> np.ndarray:
    """bool [side, side]: a character's inside, `height` pixels high, centred."""
    from matplotlib.ft2font import FT2Font

    font = FT2Font(str(path))
    # Two passes: the first measures how high this font draws a digit at a known size.
    font.set_size(height, 72)
    font.set_text(character)
    measured = font.get_width_height()[1] / 64
    font.set_size(height * height / measured, 72)
    font.set_text(character)
    font.draw_glyphs_to_bitmap(antialiased=True)
    bitmap = np.asarray(font.get_image()) > 127
    rows, columns = np.flatnonzero(bitmap.any(1)), np.flatnonzero(bitmap.any(0))
    bitmap = bitmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][:side, :side]
    canvas = np.zeros((side, side), dtype=bool)
    top, left = (side - bitmap.shape[0]) // 2, (side - bitmap.shape[1]) // 2
    canvas[top : top + bitmap.shape[0], left : left + bitmap.shape[1]] = bitmap
    return canvas


def save_whole(path: Path, array: np.ndarray) -> None:
    """Writes a .npy that either exists whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    partial.replace(path)
