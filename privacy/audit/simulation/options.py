"""What a simulation is run on. Torch-free: every call of `privacy-audit` reads this file."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SimulationOptions:
    """Public data in the place of private records, and how teachers are trained on them."""

    dataset: str | None = None
    """PUBLIC data, near in kind to the private records: glyphs, mnist, fashion-mnist, cifar10,
    cifar100, svhn, imagefolder:PATH, arrays:FILE.npz or fake."""
    data_root: Path = Path("data")
    """Folder of the data sets' files, and of what is cached of them."""
    download: bool = False
    """Fetch a torchvision data set that is not there yet."""
    size: int | None = None
    """Records to generate (glyphs, fake), or to take of all there are."""
    image_size: int | None = None
    """Side in pixels to which an image folder is brought."""
    grey: bool = False
    """Read an image folder in grey."""
    path_ids: bool = False
    """Take an image folder's paths as unit ids, where names alone do not tell pictures apart."""
    labelled: int = 100
    """Public labels that the service's reference network will have."""
    unlabelled: int = 1000
    """Public samples on which hints are aligned and bounds are found."""
    test: int = 1000
    """Labelled public samples, held out, whose answers are looked at."""
    split_seed: int = 0
    """Seed of which public samples play which part."""
    trained: int | None = None
    """Teachers really trained for each k, at most; their answers then stand for all k. As many as
    the public data have room for when not given."""
    training: tuple[str, ...] = ()
    """NAME=VALUE: an option of `teacher-server train`, such as epochs=15; repeat for several."""
