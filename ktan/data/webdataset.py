"""`webdataset:PATH`: tar archives of samples, in the form that WebDataset made common.

Files of one sample stand one after another and share a *key*, their path up to the first dot of
the file name: `000017.jpg`, `000017.cls`. A picture and its label (a number, or a class by name)
are read; other files of a sample are passed over. Nothing is unpacked, and nothing unpickled.
"""

import hashlib
import itertools
import json
import tarfile
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from ktan.data.archive_names import archive_folder, archive_paths
from ktan.data.dataset import Dataset, UnitIds
from ktan.data.image_folder import TEST_NAMES, UNITS_FILE, listed_units
from ktan.data.names import Names, names_of, repeated_names, string_array
from ktan.data.picture_cache import Part, cached_pictures
from ktan.data.pictures import IMAGE_SUFFIXES, Picture, target_shape
from ktan.durable import put_durably
from ktan.errors import UserError
from ktan.locking import exclusive

CLASSES_FILE = "classes.txt"
_VERSION = 1  # of the cached files; raise it when their order or content changes
_LONGEST_LABEL = 1000
"""Bytes of a `.cls` file that can still be a label."""


@dataclass(frozen=True, eq=False)
class _Listing:
    """The samples of all archives, in the archives' order."""

    keys: Names
    """One a sample."""
    labels: np.ndarray
    """int64 [n], -1 where there is none."""
    counts: np.ndarray
    """int64 [archives]: samples of each."""


def load_webdataset(
    named: str,
    data_root: Path,
    image_size: int | None = None,
    *,
    grey: bool = False,
    path_ids: bool = False,
) -> Dataset:
    """Reads the pictures of all archives that `named` names (see `archive_names`), in their order.

    Class names are the lines of `classes.txt` beside the archives, which must be there when any
    sample has a `.cls`. Archives whose names begin with test, val or valid are the holdout, where
    there are others. Pictures are decoded once and cached as `load_image_folder` does.

    A sample's unit id is its row in `units.csv` (`key,unit`) beside the archives when that file is
    there, else the last part of its key. `path_ids`: the whole key, folders included.
    Raises UserError for an archive that cannot be read, for ids that stand for several samples,
    and as `load_image_folder` does.
    """
    archives, folder = archive_paths(named), archive_folder(named)
    classes = _classes(folder)
    first = next(itertools.chain.from_iterable(map(_pictures, archives)), None)
    if first is None:
        raise UserError(
            f"there is no picture in {archives[0]} and the other archives "
            f"({', '.join(IMAGE_SUFFIXES)})"
        )
    shape = target_shape(first, image_size, grey=grey)
    cache = data_root / "webdatasets" / _cache_key(folder, archives, (classes, astuple(shape)))
    listing = _listed(cache / "listing.npz", archives, classes)
    unit_ids = _unit_ids(folder, listing.keys, path_ids=path_ids)
    ends = np.cumsum(listing.counts).tolist()
    parts = [
        Part(np.arange(end - count, end), _reader(archive))
        for archive, count, end in zip(archives, listing.counts.tolist(), ends, strict=True)
    ]
    return Dataset(
        name=f"webdataset:{folder.resolve().name}",
        classes=classes or ("0",),
        samples=cached_pictures(cache, shape, parts),
        labels=torch.from_numpy(listing.labels),
        unit_ids=unit_ids,
        holdout=torch.from_numpy(np.repeat(_holdout(archives), listing.counts)),
        location=folder,
        ids_given=(folder / UNITS_FILE).exists(),
    )


def _classes(folder: Path) -> tuple[str, ...]:
    path = folder / CLASSES_FILE
    if not path.exists():
        return ()
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _holdout(archives: Sequence[Path]) -> np.ndarray:
    """bool [archives]; none where all of them would be."""
    held = np.array([path.name.lower().startswith(TEST_NAMES) for path in archives])
    return held & ~held.all()


def _cache_key(folder: Path, archives: Sequence[Path], settings: object) -> str:
    """Changes with the archives' names, sizes and times, and with `settings`."""
    stats = [(str(path.resolve()), path.stat()) for path in archives]
    facts = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    described = json.dumps([_VERSION, settings, facts])
    return f"{folder.resolve().name}-{hashlib.sha256(described.encode()).hexdigest()[:16]}"


def _listed(path: Path, archives: Sequence[Path], classes: tuple[str, ...]) -> _Listing:
    """As it was recorded in `path`, else as the archives say."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with exclusive(path.parent, wait=True):
            if not path.exists():
                found = _list_samples(archives, classes)
                partial = path.with_name(".listing.partial.npz")
                keys = string_array(found.keys)
                np.savez(partial, keys=keys, labels=found.labels, counts=found.counts)
                put_durably(partial, path)
    with np.load(path, allow_pickle=False) as stored:
        return _Listing(names_of(stored["keys"]), stored["labels"], stored["counts"])


def _list_samples(archives: Sequence[Path], classes: tuple[str, ...]) -> _Listing:
    keys, labels = Names(), array("q")
    counts: list[int] = []
    for archive in archives:
        before = len(keys)
        for key, fields in _samples(archive):
            pictures = [extension for extension in fields if _is_picture(extension)]
            if len(pictures) != 1:
                raise UserError(
                    f"{archive}: sample {key} has {len(pictures)} pictures; it must have one "
                    f"({', '.join(IMAGE_SUFFIXES)})"
                )
            keys.extend([key])
            labels.append(_label(f"{archive}: {key}.cls", fields.get("cls"), classes))
        counts.append(len(keys) - before)
    if not len(keys):
        raise UserError(f"there is no sample in {archives[0]} and the other archives")
    return _Listing(keys, np.frombuffer(labels, dtype=np.int64), np.array(counts))


def _samples(archive: Path) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """Key and, by extension, what a label may be read from; of other files None."""
    current, fields = "", dict[str, bytes | None]()
    for key, extension, content in _files(archive, lambda extension: extension == "cls"):
        if key != current and fields:
            yield current, fields
            fields = {}
        current = key
        fields[extension] = content
    if fields:
        yield current, fields


def _reader(archive: Path) -> Callable[[], Iterator[Picture]]:
    return lambda: _pictures(archive)


def _pictures(archive: Path) -> Iterator[Picture]:
    for key, extension, content in _files(archive, _is_picture):
        if content is not None:
            yield Picture(f"{archive}: {key}.{extension}", content)


def _is_picture(extension: str) -> bool:
    return f".{extension}".lower().endswith(IMAGE_SUFFIXES)


def _files(archive: Path, read: Callable[[str], bool]) -> Iterator[tuple[str, str, bytes | None]]:
    """Key, extension and, of the extensions that are to be `read`, content of each file.

    Raises UserError for an archive that is damaged.
    """
    try:
        with tarfile.open(archive, "r:*") as opened:
            for member in opened:
                # Else the archive object keeps every header that it has seen.
                opened.members = []  # type: ignore[attr-defined]
                path = PurePosixPath(member.name)
                stem, _, extension = path.name.partition(".")
                if not member.isreg() or not stem or not extension:
                    continue
                file = opened.extractfile(member) if read(extension) else None
                key = (path.parent / stem).as_posix()
                yield key, extension, None if file is None else file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{archive} cannot be read as a tar archive: {error}") from error


def _label(name: str, content: bytes | None, classes: tuple[str, ...]) -> int:
    """The position of a class; -1 without content."""
    if content is None:
        return -1
    text = content[:_LONGEST_LABEL].decode("utf-8", errors="replace").strip()
    if not classes:
        raise UserError(
            f"{name} is a label, but no {CLASSES_FILE} beside the archives names the classes, and "
            "private labels must not decide how many there are: write one name a line"
        )
    if text in classes:
        return classes.index(text)
    if not text.isdecimal() or int(text) >= len(classes):
        raise UserError(
            f"{name} says {text[:40]!r}, which is no class of the {len(classes)} in {CLASSES_FILE}"
        )
    return int(text)


def _unit_ids(folder: Path, keys: Names, *, path_ids: bool) -> UnitIds:
    """str [N]. A folder in an archive may be a label: it is no part of an id unless asked for."""
    listed = folder / UNITS_FILE
    if listed.exists():
        if path_ids:
            raise UserError(f"{listed} names the units; remove it, or leave out --path-ids")
        return listed_units(listed, keys)
    names = keys if path_ids else Names(PurePosixPath(key).name for key in keys)
    repeated = repeated_names(names)
    if repeated:
        raise UserError(
            f"{len(repeated)} keys of the archives in {folder} stand for several samples, one is "
            f"{min(repeated)}: give every sample a key of its own, or list whose it is in "
            f"{UNITS_FILE} (`key,unit` a line)"
            + ("" if path_ids else "; --path-ids counts the folders in the archives, too")
        )
    return string_array(names)
