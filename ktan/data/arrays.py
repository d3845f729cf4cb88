"""`arrays:FILE.npz`: one's own images or tables, with labels and unit ids."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ktan.data.dataset import Dataset, UnitIds
from ktan.errors import UserError

_KNOWN = ("samples", "labels", "unit_ids", "holdout", "classes")


def load_arrays(path: Path) -> Dataset:
    """Reads a .npz with these arrays, of which only `samples` must be there.

    - `samples`: uint8 images [N, H, W], [N, H, W, C] or [N, C, H, W] (C is 1 or 3), or a table
      [N, d] of any real numbers, all finite.
    - `labels`: integers [N], the position of a class, -1 for none.
    - `unit_ids`: integers or strings [N]; equal ids (a person, an account) stay together and are
      protected together. By default every record is its own unit.
    - `holdout`: bool [N], the official test part.
    - `classes`: strings, the classes' names in order. Must be there when `labels` are: the number
      of classes is public, and the highest label of private records must not decide it.

    Raises UserError for anything else; pickled objects are never read.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; arrays: wants the path of a .npz file")
    if path.suffix != ".npz":
        raise UserError(f"arrays:{path} is not a .npz file; write one with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read without pickle: {error}") from error
    unknown = sorted(set(arrays) - set(_KNOWN))
    if "samples" not in arrays or unknown:
        raise UserError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}; it needs `samples`, and may "
            "hold labels, unit_ids, holdout and classes"
        )
    samples = _samples(path, arrays["samples"])
    count = len(samples)
    labels = _labels(path, arrays.get("labels"), count)
    classes = _classes(path, arrays.get("classes"), labelled="labels" in arrays)
    holdout = arrays.get("holdout", np.zeros(count, dtype=bool))
    if holdout.dtype != np.bool_:
        raise UserError(f"{path}: holdout is {holdout.dtype}, not bool")
    return Dataset(
        name=f"arrays:{path.stem}",
        classes=classes,
        samples=samples,
        labels=labels,
        unit_ids=_unit_ids(path, arrays.get("unit_ids"), count),
        holdout=torch.from_numpy(holdout),
        location=path,
        ids_given="unit_ids" in arrays,
    )


def _samples(path: Path, samples: np.ndarray) -> Tensor:
    if samples.ndim == 2 and samples.dtype.kind in "iufb":
        table = torch.from_numpy(samples.astype(np.float32))
        if not bool(torch.isfinite(table).all()):
            raise UserError(f"{path}: the table holds values that are not finite; fill them first")
        return table
    if samples.dtype == np.uint8 and samples.ndim == 3:
        return torch.from_numpy(samples).unsqueeze(1)
    if samples.dtype == np.uint8 and samples.ndim == 4:
        images = torch.from_numpy(samples)
        if samples.shape[1] in (1, 3):
            return images
        if samples.shape[3] in (1, 3):
            return images.permute(0, 3, 1, 2).contiguous()
    raise UserError(
        f"{path}: samples are {samples.dtype} {list(samples.shape)}; give uint8 images [N, H, W], "
        "[N, H, W, C] or [N, C, H, W] with 1 or 3 channels, or a table [N, d]"
    )


def _labels(path: Path, labels: np.ndarray | None, count: int) -> Tensor:
    if labels is None:
        return torch.full((count,), -1, dtype=torch.int64)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise UserError(f"{path}: labels are {labels.dtype} {list(labels.shape)}, not integers [N]")
    return torch.from_numpy(labels.astype(np.int64))


def _classes(path: Path, classes: np.ndarray | None, *, labelled: bool) -> tuple[str, ...]:
    if classes is None:
        if labelled:
            raise UserError(
                f"{path} has labels but does not name the classes, and private labels must not "
                'decide how many there are: add classes=["first", "second", …] to numpy.savez, '
                "a name for every label from 0"
            )
        return ("0",)
    if classes.dtype.kind != "U" or classes.ndim != 1 or len(classes) == 0:
        raise UserError(
            f"{path}: classes are {classes.dtype} {list(classes.shape)}, not strings [K]"
        )
    return tuple(classes.tolist())


def _unit_ids(path: Path, unit_ids: np.ndarray | None, count: int) -> UnitIds:
    if unit_ids is None:
        return np.arange(count, dtype=np.int64)
    if unit_ids.dtype.kind not in "iuU" or unit_ids.ndim != 1:
        raise UserError(
            f"{path}: unit_ids are {unit_ids.dtype} {list(unit_ids.shape)}, not integers or "
            "strings [N]"
        )
    return unit_ids if unit_ids.dtype.kind == "U" else unit_ids.astype(np.int64)
