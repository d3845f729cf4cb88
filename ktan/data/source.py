"""The options that name a data set, and the one door to all of them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ktan.data.archive_names import archive_folder
from ktan.data.arrays import load_arrays
from ktan.data.dataset import Dataset
from ktan.data.fake import load_fake
from ktan.data.glyphs import load_glyphs
from ktan.data.image_folder import load_image_folder
from ktan.data.names import ids_at
from ktan.data.torchvision_sets import TORCHVISION_NAMES, load_torchvision, torchvision_folder
from ktan.data.unit_hash import unit_hash
from ktan.data.units import distinct_units
from ktan.data.webdataset import load_webdataset
from ktan.errors import UserError
from ktan.spool import taken

DATASETS = (
    "glyphs",
    *TORCHVISION_NAMES,
    "imagefolder:PATH",
    "webdataset:PATH",
    "arrays:FILE.npz",
    "fake",
)
_PATHS = ("imagefolder", "webdataset", "arrays")


@dataclass(frozen=True)
class DataSource:
    """Where samples and records come from."""

    dataset: str = "glyphs"
    """glyphs, mnist, fashion-mnist, cifar10, cifar100, svhn, imagefolder:PATH, webdataset:PATH,
    arrays:FILE.npz or fake."""
    data_root: Path = Path("data")
    """Folder of the data sets' files, and of what is cached of them."""
    download: bool = False
    """Fetch a torchvision data set that is not there yet."""
    size: int | None = None
    """Records to generate (glyphs, fake), or units to take of all there are, by a hash of their
    ids (the others)."""
    image_size: int | None = None
    """Side in pixels to which an image folder or archives are brought; all their pictures must
    have one size when not given."""
    grey: bool = False
    """Read an image folder or archives in grey; in colour (RGB) when not given."""
    path_ids: bool = False
    """Take file paths as unit ids, class folder included: only where a label is no private
    content, as in a public benchmark."""

    @property
    def location(self) -> Path:
        """`location` of what `load` gives, known without reading any of it.

        Raises UserError for an unknown name.
        """
        kind, _, argument = self.dataset.partition(":")
        if kind in _PATHS:
            if not argument:
                raise UserError(f"--dataset {kind} needs a path: {kind}:PATH")
            return archive_folder(argument) if kind == "webdataset" else Path(argument)
        if self.dataset in ("glyphs", "fake"):
            return self.data_root / self.dataset
        if self.dataset in TORCHVISION_NAMES:
            return torchvision_folder(self.dataset, self.data_root)
        raise UserError(f"no data set is called {self.dataset!r}; there are {', '.join(DATASETS)}")

    def load(self) -> Dataset:
        """The whole data set; raises UserError for an unknown name or missing files."""
        kind, location = self.dataset.partition(":")[0], self.location
        if self.size is not None and self.size < 1:
            raise UserError(f"--size is {self.size}; at least one is needed")
        if kind == "arrays":
            return _thinned(load_arrays(location), self.size)
        if kind in ("imagefolder", "webdataset"):
            how = {"grey": self.grey, "path_ids": self.path_ids}
            if kind == "imagefolder":
                found = load_image_folder(location, self.data_root, self.image_size, **how)
            else:
                named = self.dataset.partition(":")[2]
                found = load_webdataset(named, self.data_root, self.image_size, **how)
            return _thinned(found, self.size)
        if self.dataset == "glyphs":
            return load_glyphs(self.data_root, self.size)
        if self.dataset == "fake":
            return load_fake(self.data_root, self.size)
        whole = load_torchvision(self.dataset, self.data_root, download=self.download)
        return _thinned(whole, self.size)


def _thinned(dataset: Dataset, size: int | None) -> Dataset:
    """All records of the `size` units whose ids hash lowest: no content has a say in it, and no
    number of records.

    The training units and those with a record in the official test part keep their share.
    """
    units, inverse = distinct_units(dataset.unit_ids)
    if size is None or size >= len(units):
        return dataset
    held = np.zeros(len(units), dtype=bool)
    held[inverse[dataset.holdout.numpy()]] = True
    order = np.argsort(unit_hash(ids_at(dataset.unit_ids, units), "size"), kind="stable")
    held_size = round(size * int(held.sum()) / len(units))
    training, tests = order[~held[order]], order[held[order]]
    chosen = np.concatenate([training[: size - held_size], tests[:held_size]])
    kept = np.flatnonzero(np.isin(inverse, chosen))
    rows = torch.from_numpy(kept)
    return replace(
        dataset,
        samples=taken(dataset.samples, rows),
        labels=dataset.labels[rows],
        unit_ids=ids_at(dataset.unit_ids, kept),
        holdout=dataset.holdout[rows],
    )
