"""Small synthetic images for tests: each class is a fixed random pattern under noise."""

from pathlib import Path

import numpy as np
import torch

from ktan.data.dataset import Dataset

CLASSES = 10
SHAPE = (1, 28, 28)


def load_fake(data_root: Path, size: int | None = None) -> Dataset:
    """`size` (1,000 by default) images uint8 [1, 28, 28] of 10 classes; the last fifth is held out.

    Nothing is read or written; the same size always gives the same images.
    """
    count = 1000 if size is None else size
    generator = torch.Generator().manual_seed(20180703)
    patterns = torch.rand(CLASSES, *SHAPE, generator=generator)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    noise = torch.rand(count, *SHAPE, generator=generator)
    samples = (255 * (0.6 * patterns[labels] + 0.4 * noise)).to(torch.uint8)
    holdout = torch.arange(count) >= count - count // 5
    return Dataset(
        name="fake",
        classes=tuple(f"pattern-{label}" for label in range(CLASSES)),
        samples=samples,
        labels=labels,
        unit_ids=np.arange(count, dtype=np.int64),
        holdout=holdout,
        location=data_root / "fake",
        published=True,
    )
