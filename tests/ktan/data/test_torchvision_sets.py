"""Tiny files in each benchmark's own format, read through torchvision."""

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets

from ktan.data.torchvision_sets import load_torchvision
from ktan.errors import UserError

RANDOM = np.random.default_rng(0)


def write_idx(path: Path, array: np.ndarray) -> None:
    """The format of yann.lecun.com/exdb/mnist: type and rank, big-endian sizes, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}i", *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]
)
def test_idx_files(tmp_path: Path, name: str, folder: str) -> None:
    images = RANDOM.integers(0, 256, (9, 28, 28))
    labels = np.arange(9)
    raw = tmp_path / folder / "raw"
    write_idx(raw / "train-images-idx3-ubyte", images[:6])
    write_idx(raw / "train-labels-idx1-ubyte", labels[:6])
    write_idx(raw / "t10k-images-idx3-ubyte", images[6:])
    write_idx(raw / "t10k-labels-idx1-ubyte", labels[6:])
    dataset = load_torchvision(name, tmp_path, download=False)
    assert dataset.samples.shape == (9, 1, 28, 28)
    assert np.array_equal(dataset.samples[:, 0].numpy(), images)
    assert dataset.labels.tolist() == labels.tolist()
    assert dataset.holdout.tolist() == [False] * 6 + [True] * 3
    assert dataset.unit_ids.tolist() == list(range(9))
    assert len(dataset.classes) == 10
    assert dataset.location == tmp_path / folder


def write_pickle(path: Path, content: dict[str, Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_files(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    key = "labels" if name == "cifar10" else "fine_labels"
    folder = tmp_path / kind.base_folder
    images = RANDOM.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    train = write_pickle(folder / "first", {"data": images[:3].reshape(3, -1), key: [7, 1, 4]})
    test = write_pickle(folder / "last", {"data": images[3:].reshape(2, -1), key: [0, 9]})
    names = [f"class-{number}" for number in range(10)]
    meta = write_pickle(folder / "names", {kind.meta["key"]: names})
    # The real files have published checksums; ours have their own.
    monkeypatch.setattr(kind, "train_list", [["first", train]])
    monkeypatch.setattr(kind, "test_list", [["last", test]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "filename": "names", "md5": meta})
    dataset = load_torchvision(name, tmp_path, download=False)
    assert np.array_equal(dataset.samples.numpy(), images)
    assert dataset.samples.is_contiguous()
    assert dataset.labels.tolist() == [7, 1, 4, 0, 9]
    assert dataset.holdout.tolist() == [False] * 3 + [True] * 2
    assert dataset.classes == tuple(names)
    assert dataset.location == folder


def test_svhn_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = RANDOM.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    labels = np.array([3, 10, 1, 9, 10])  # SVHN writes the digit 0 as 10
    split_list: dict[str, list[str]] = {}
    for part, file, places in [("train", "a.mat", slice(3)), ("test", "b.mat", slice(3, 5))]:
        path = tmp_path / "svhn" / file
        path.parent.mkdir(exist_ok=True)
        savemat(path, {"X": images[places].transpose(2, 3, 1, 0), "y": labels[places, None]})
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        split_list[part] = ["", file, digest]
    monkeypatch.setattr(datasets.SVHN, "split_list", split_list)
    dataset = load_torchvision("svhn", tmp_path, download=False)
    assert np.array_equal(dataset.samples.numpy(), images)
    assert dataset.labels.tolist() == [3, 0, 1, 9, 0]
    assert dataset.labels.dtype == torch.int64
    assert dataset.classes == tuple("0123456789")
    assert dataset.location == tmp_path / "svhn"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn"])
def test_missing_files_say_what_to_do(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="--download") as caught:
        load_torchvision(name, tmp_path, download=False)
    assert "\n" not in str(caught.value)
