"""`imagefolder:PATH`: a folder of images per class, decoded once into one memory-mapped tensor."""

import csv
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from ktan.data.dataset import Dataset, UnitIds
from ktan.data.names import NamePlaces, Names, ids_at, repeated_names, string_array
from ktan.data.picture_cache import Part, cached_pictures
from ktan.data.pictures import IMAGE_SUFFIXES, Picture, Shape, target_shape
from ktan.data.unit_hash import mixed_order
from ktan.errors import UserError

TEST_NAMES = ("test", "val", "valid")
UNITS_FILE = "units.csv"
_VERSION = 3  # of the cached files; raise it when their order or content changes
_PART = 4096
"""Pictures that are decoded, and lost to a kill, together; rows of a list read at a time."""


@dataclass(frozen=True, eq=False)
class _Listing:
    """The pictures of a folder, in one order."""

    paths: Names
    """Relative to the folder, with forward slashes."""
    labels: np.ndarray
    """int64 [n]."""
    holdout: np.ndarray
    """bool [n]."""

    def ordered(self, order: np.ndarray) -> "_Listing":
        return _Listing(self.paths.at(order), self.labels[order], self.holdout[order])


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
    classes, listing = _list_pictures(path)
    unit_ids = _unit_ids(path, listing.paths, path_ids=path_ids)
    order = mixed_order(unit_ids, listing.holdout)
    listing, unit_ids = listing.ordered(order), ids_at(unit_ids, order)
    shape = target_shape(_picture(path, listing.paths[0]), image_size, grey=grey)
    cache = data_root / "image-folders" / _cache_key(path, listing.paths, shape)
    return Dataset(
        name=f"imagefolder:{path.resolve().name}",
        classes=classes,
        samples=cached_pictures(cache, shape, _parts(path, listing.paths)),
        labels=torch.from_numpy(listing.labels),
        unit_ids=unit_ids,
        holdout=torch.from_numpy(listing.holdout),
        location=path,
        ids_given=(path / UNITS_FILE).exists(),
    )


def _list_pictures(path: Path) -> tuple[tuple[str, ...], _Listing]:
    folders = _subfolders(path)
    test = next((name for name in TEST_NAMES if name in folders), None)
    parts = [("train", False), (test, True)] if "train" in folders and test else [("", False)]
    classes = tuple(sorted({name for part, _ in parts for name in _subfolders(path / str(part))}))
    paths = Names()
    counts, labels, marks = [], [], []
    for part, holdout in parts:
        for label, name in enumerate(classes):
            before = len(paths)
            paths.extend(sorted(_pictures_under(path, path / str(part) / name)))
            counts.append(len(paths) - before)
            labels.append(label)
            marks.append(holdout)
    if not len(paths):
        raise UserError(
            f"no picture under {path}: put them in one folder per class, or in train/ and test/ "
            f"with one folder per class ({', '.join(IMAGE_SUFFIXES)})"
        )
    of_each = np.repeat(np.array(labels, dtype=np.int64), counts)
    return classes, _Listing(paths, of_each, np.repeat(np.array(marks), counts))


def _pictures_under(path: Path, folder: Path) -> Iterator[str]:
    """Relative to `path`."""
    for where, _, files in os.walk(folder):
        inside = Path(where).relative_to(path).as_posix()
        yield from (f"{inside}/{file}" for file in files if file.lower().endswith(IMAGE_SUFFIXES))


def _picture(path: Path, relative: str) -> Picture:
    return Picture(str(path / relative), path / relative)


def _parts(path: Path, paths: Names) -> list[Part]:
    def part(start: int) -> Part:
        rows = np.arange(start, min(start + _PART, len(paths)))
        return Part(rows, lambda: (_picture(path, paths[row]) for row in rows.tolist()))

    return [part(start) for start in range(0, len(paths), _PART)]


def _subfolders(path: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in os.scandir(path)
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _cache_key(path: Path, paths: Names, shape: Shape) -> str:
    """Changes with the files' names, sizes and times, so that a changed folder is read anew."""
    head = json.dumps([_VERSION, str(path.resolve()), astuple(shape)]).removesuffix("]")
    described = hashlib.sha256(f"{head}, [".encode())
    for number, relative in enumerate(paths):
        stat = os.stat(path / relative)
        fact = json.dumps([relative, stat.st_size, stat.st_mtime_ns])
        described.update(f"{', ' if number else ''}{fact}".encode())
    described.update(b"]]")
    return f"{path.resolve().name}-{described.hexdigest()[:16]}"


def _unit_ids(path: Path, paths: Names, *, path_ids: bool) -> UnitIds:
    """str [N]. The class folder is a label: moving a picture to another changes no id."""
    listed = path / UNITS_FILE
    if path_ids:
        if listed.exists():
            raise UserError(f"{listed} names the units; remove it, or leave out --path-ids")
        return string_array(paths)
    if listed.exists():
        return listed_units(listed, paths)
    names = Names(PurePosixPath(relative).name for relative in paths)
    repeated = repeated_names(names)
    if repeated:
        raise UserError(
            f"{len(repeated)} file names under {path} stand for several pictures, one is "
            f"{min(repeated)}: give every picture a name of its own, or list whose it is in "
            f"{UNITS_FILE} (`path,unit` a line); --path-ids tells them apart by class folder, "
            "only where a label is no private content, as in a public benchmark"
        )
    return string_array(names)


def listed_units(listed: Path, paths: Names) -> UnitIds:
    """str [N]: whose each picture is, by a file of `path,unit` lines.

    Raises UserError when it leaves one out.
    """
    places, units = NamePlaces(paths), Names()
    row_of = np.full(len(paths), -1)
    with listed.open(newline="", encoding="utf-8") as file:
        rows = (row for row in csv.reader(file) if len(row) == 2)
        while some := list(itertools.islice(rows, _PART)):
            for row, place in places.find([name for name, _ in some]):
                row_of[place] = len(units) + row
            units.extend(unit for _, unit in some)
    missing = np.flatnonzero(row_of < 0)
    if len(missing):
        raise UserError(
            f"{listed} names no unit for {len(missing)} pictures, the first "
            f"{paths[int(missing[0])]}; give one `path,unit` line each"
        )
    return string_array(units.at(row_of))
