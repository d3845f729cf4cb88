"""MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN, read by torchvision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ktan.data.dataset import Dataset
from ktan.errors import UserError

_FOLDERS = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "svhn": "svhn",
}
TORCHVISION_NAMES = tuple(_FOLDERS)


def torchvision_folder(name: str, data_root: Path) -> Path:
    """Where torchvision keeps the files of the data set `name`."""
    return data_root / _FOLDERS[name]


def load_torchvision(name: str, data_root: Path, *, download: bool) -> Dataset:
    """The training part followed by the test part, which is the holdout.

    A record's unit id is its position in the files. Raises UserError when the files are missing
    and `download` is off.
    """
    location = torchvision_folder(name, data_root)
    root = location if name == "svhn" else data_root
    try:
        parts = [_part(name, root, train, download) for train in (True, False)]
    except (RuntimeError, FileNotFoundError) as error:
        raise UserError(
            f"{name} is not under {data_root} ({_first_line(error)}): give --data-root, or "
            "--download to fetch it"
        ) from error
    samples = torch.cat([_images(part.data) for part in parts])
    labels = torch.cat([_labels(part) for part in parts])
    trained_on = len(parts[0].data)
    return Dataset(
        name=name,
        classes=_classes(name, parts[0]),
        samples=samples,
        labels=labels,
        unit_ids=np.arange(len(samples), dtype=np.int64),
        holdout=torch.arange(len(samples)) >= trained_on,
        location=location,
        published=True,
    )


def _part(name: str, root: Path, train: bool, download: bool) -> Any:
    # torchvision takes a second to import; only these data sets need it.
    from torchvision import datasets

    if name == "svhn":
        return datasets.SVHN(str(root), split="train" if train else "test", download=download)
    makers: dict[str, Callable[..., Any]] = {
        "mnist": datasets.MNIST,
        "fashion-mnist": datasets.FashionMNIST,
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
    }
    return makers[name](str(root), train=train, download=download)


def _images(data: Any) -> Tensor:
    """uint8 [N, C, H, W] of torchvision's [N, H, W], [N, H, W, 3] or [N, 3, H, W]."""
    images = torch.as_tensor(data)
    if images.ndim == 3:
        return images.unsqueeze(1)
    return images if images.shape[1] == 3 else images.permute(0, 3, 1, 2).contiguous()


def _labels(part: Any) -> Tensor:
    values = part.targets if hasattr(part, "targets") else part.labels
    return torch.as_tensor(values).to(torch.int64)


def _classes(name: str, part: Any) -> tuple[str, ...]:
    if name == "svhn":
        return tuple(str(digit) for digit in range(10))
    return tuple(part.classes)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".")
