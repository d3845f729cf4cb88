"""One picture, from a file or from bytes, as the pixels that a data set holds."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ktan.errors import UserError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Shape:
    """What every picture of a data set becomes."""

    channels: int
    height: int
    width: int
    resized: bool  # pictures of another size are brought to this one, not refused


@dataclass(frozen=True)
class Picture:
    """Where one picture is read."""

    name: str
    """As an error tells it."""
    source: Path | bytes

    def pixels(self, shape: Shape) -> np.ndarray:
        """uint8 [C, H, W]; another size is brought to it by an antialiased bilinear filter.

        Raises UserError when it cannot be decoded, or has another size that is not resized.
        """
        size = (shape.width, shape.height)
        with self._open() as image:
            if image.size != size and not shape.resized:
                raise UserError(
                    f"{self.name} is {image.width}×{image.height}, and another picture is "
                    f"{shape.width}×{shape.height}: say one size for all with --image-size"
                )
            try:
                colours = _eight_bits(image).convert("L" if shape.channels == 1 else "RGB")
            except OSError as error:
                raise UserError(f"{self.name} is damaged: {error}") from error
            if colours.size != size:
                colours = colours.resize(size, Image.Resampling.BILINEAR)
            pixels = np.asarray(colours)
        return pixels[None] if shape.channels == 1 else pixels.transpose(2, 0, 1)

    def _open(self) -> Image.Image:
        source = self.source if isinstance(self.source, Path) else io.BytesIO(self.source)
        try:
            return Image.open(source)
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
            raise UserError(f"{self.name} is not a picture that can be read: {error}") from error


def target_shape(first: Picture, image_size: int | None, *, grey: bool) -> Shape:
    """Without `image_size`, the size of the first picture, which all must have.

    Raises UserError for a size below one pixel and for a picture that cannot be read.
    """
    if image_size is not None and image_size < 1:
        raise UserError(f"--image-size is {image_size}; at least one pixel is needed")
    channels = 1 if grey else 3
    if image_size is not None:
        return Shape(channels, image_size, image_size, resized=True)
    with first._open() as image:
        return Shape(channels, image.height, image.width, resized=False)


def _eight_bits(image: Image.Image) -> Image.Image:
    # PIL's own conversion makes everything above 255 white.
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image
