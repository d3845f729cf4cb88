"""`imagefolder:PATH`: a folder of images per class, decoded once into one memory-mapped tensor."""

import csv
import hashlib
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from ktan.data.dataset import Dataset, UnitIds
from ktan.data.unit_hash import unit_hash
from ktan.errors import UserError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_TEST_NAMES = ("test", "val", "valid")
_UNITS_FILE = "units.csv"
_VERSION = 3  # of the cached files; raise it when their order or content changes


@dataclass(frozen=True)
class _Picture:
    path: str  # relative to the folder, with forward slashes
    label: int
    holdout: bool


@dataclass(frozen=True)
class _Shape:
    channels: int
    height: int
    width: int
    resized: bool  # pictures of another size are brought to this one, not refused


def load_image_folder(
    path: Path,
    data_root: Path,
    image_size: int | None = None,
    *,
    grey: bool = False,
    path_ids: bool = False,
) -> Dataset:
    """Reads `PATH/CLASS/...`, or `PATH/train/CLASS/...` with `PATH/test/CLASS/...` as holdout.

    Images are decoded once to RGB (or `grey`), brought to `image_size` squared (without it all
    must have one size), and cached as .npy under `data_root`, in a folder that only its owner can
    read: the copy is as private as the original. No picture's content decides a shape that all
    get to know. Within a part they stand in the order of a hash of their unit ids.

    A picture's unit id is its row in `PATH/units.csv` (`path,unit`, no header) when that file is
    there, else its file name. `path_ids`: its path, class folder included; then its label is part
    of its identity, and not protected.
    Raises UserError when there is nothing to read, when two pictures share a file name, or when a
    picture cannot be decoded or has another size.
    """
    if not path.is_dir():
        raise UserError(f"imagefolder:{path} is not a folder")
    if image_size is not None and image_size < 1:
        raise UserError(f"--image-size is {image_size}; at least one pixel is needed")
    classes, pictures = _list_pictures(path)
    unit_ids = _unit_ids(path, pictures, path_ids=path_ids)
    order = _order(pictures, unit_ids)
    pictures, unit_ids = [pictures[place] for place in order], unit_ids[order]
    shape = _target_shape(path, pictures, image_size, grey=grey)
    cache = data_root / "image-folders" / _cache_key(path, pictures, shape)
    samples_file = cache / "samples.npy"
    if not samples_file.exists():
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        _decode(path, pictures, shape, samples_file)
    mapped = np.load(samples_file, mmap_mode="c", allow_pickle=False)
    return Dataset(
        name=f"imagefolder:{path.resolve().name}",
        classes=classes,
        samples=torch.from_numpy(mapped),
        labels=torch.tensor([picture.label for picture in pictures]),
        unit_ids=unit_ids,
        holdout=torch.tensor([picture.holdout for picture in pictures]),
        location=path,
        ids_given=(path / _UNITS_FILE).exists(),
    )


def _list_pictures(path: Path) -> tuple[tuple[str, ...], list[_Picture]]:
    folders = _subfolders(path)
    test = next((name for name in _TEST_NAMES if name in folders), None)
    parts = [("train", False), (test, True)] if "train" in folders and test else [("", False)]
    classes = tuple(sorted({name for part, _ in parts for name in _subfolders(path / str(part))}))
    pictures = []
    for part, holdout in parts:
        for label, name in enumerate(classes):
            folder = path / str(part) / name
            found = [
                os.path.join(where, file)
                for where, _, files in os.walk(folder)
                for file in files
                if file.lower().endswith(IMAGE_SUFFIXES)
            ]
            pictures += [
                _Picture(Path(file).relative_to(path).as_posix(), label, holdout) for file in found
            ]
    if not pictures:
        raise UserError(
            f"no picture under {path}: put them in one folder per class, or in train/ and test/ "
            f"with one folder per class ({', '.join(IMAGE_SUFFIXES)})"
        )
    return classes, pictures


def _order(pictures: list[_Picture], unit_ids: UnitIds) -> list[int]:
    """The training part first; in each part by unit id alone, so that no label moves anybody.

    Class after class, the last thousand pictures of a part would all show the same thing. A path
    decides between pictures of one unit only.
    """
    hashed = unit_hash(unit_ids, "order of pictures").tolist()
    units = unit_ids.tolist()

    def key(place: int) -> tuple[bool, int, str, str]:
        picture = pictures[place]
        return picture.holdout, hashed[place], units[place], picture.path

    return sorted(range(len(pictures)), key=key)


def _subfolders(path: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in os.scandir(path)
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _target_shape(
    path: Path, pictures: list[_Picture], image_size: int | None, *, grey: bool
) -> _Shape:
    channels = 1 if grey else 3
    if image_size is not None:
        return _Shape(channels, image_size, image_size, resized=True)
    with _open(path / pictures[0].path) as image:
        return _Shape(channels, image.height, image.width, resized=False)


def _cache_key(path: Path, pictures: list[_Picture], shape: _Shape) -> str:
    """Changes with the files' names, sizes and times, so that a changed folder is read anew."""
    facts = [
        (picture.path, stat.st_size, stat.st_mtime_ns)
        for picture in pictures
        for stat in [os.stat(path / picture.path)]
    ]
    described = json.dumps([_VERSION, str(path.resolve()), astuple(shape), facts])
    return f"{path.resolve().name}-{hashlib.sha256(described.encode()).hexdigest()[:16]}"


def _decode(path: Path, pictures: list[_Picture], shape: _Shape, target: Path) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    whole = (len(pictures), shape.channels, shape.height, shape.width)
    cached = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=whole)

    def decode_one(position: int) -> None:
        cached[position] = _pixels(path / pictures[position].path, shape)

    # PIL leaves Python's lock while it decodes and resizes.
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(decode_one, range(len(pictures)), chunksize=256):
            pass
    cached.flush()
    partial.replace(target)


def _pixels(file: Path, shape: _Shape) -> np.ndarray:
    """uint8 [C, H, W]; another size is brought to it by an antialiased bilinear filter."""
    size = (shape.width, shape.height)
    with _open(file) as image:
        if image.size != size and not shape.resized:
            raise UserError(
                f"{file} is {image.width}×{image.height}, and another picture is "
                f"{shape.width}×{shape.height}: say one size for all with --image-size"
            )
        try:
            colours = _eight_bits(image).convert("L" if shape.channels == 1 else "RGB")
        except OSError as error:
            raise UserError(f"{file} is damaged: {error}") from error
        if colours.size != size:
            colours = colours.resize(size, Image.Resampling.BILINEAR)
        pixels = np.asarray(colours)
    return pixels[None] if shape.channels == 1 else pixels.transpose(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    # PIL's own conversion makes everything above 255 white.
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


def _open(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{file} is not a picture that can be read: {error}") from error


def _unit_ids(path: Path, pictures: list[_Picture], *, path_ids: bool) -> UnitIds:
    """str [N]. The class folder is a label: moving a picture to another changes no id."""
    listed = path / _UNITS_FILE
    if path_ids:
        if listed.exists():
            raise UserError(f"{listed} names the units; remove it, or leave out --path-ids")
        return np.array([picture.path for picture in pictures])
    if listed.exists():
        with listed.open(newline="", encoding="utf-8") as file:
            units = {row[0]: row[1] for row in csv.reader(file) if len(row) == 2}
        missing = [picture.path for picture in pictures if picture.path not in units]
        if missing:
            raise UserError(
                f"{listed} names no unit for {len(missing)} pictures, the first {missing[0]}; "
                "give one `path,unit` line each"
            )
        return np.array([units[picture.path] for picture in pictures])
    names = [Path(picture.path).name for picture in pictures]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(
            f"{len(repeated)} file names under {path} stand for several pictures, one is "
            f"{min(repeated)}: give every picture a name of its own, or list whose it is in "
            f"{_UNITS_FILE} (`path,unit` a line); --path-ids tells them apart by class folder, "
            "only where a label is no private content, as in a public benchmark"
        )
    return np.array(names)
