"""The teacher's folder: card, weights of all k teachers, alignment of their hints.

    card.json                what anybody may know
    weights.safetensors      parameter or buffer name → [k, ...]
    alignment.safetensors    per aligned hint: NAME.centre [k, d] and NAME.matrix [k, d, m]
    tsl.safetensors          teacher-to-student layers, `tsl:TAP:PART` → [k, ...]; where there are

The folder appears whole or not at all, is readable by its owner only, and holds no pickle. An
application may put one file with a keyed digest beside these.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from ktan.card_file import CARD_FILE
from ktan.durable import sync_folder, write_durably
from ktan.errors import UserError
from ktan.teachers.alignment import Alignment
from ktan.teachers.card import TeacherCard
from ktan.teachers.tsl import layers_only, without_layers

WEIGHTS_FILE = "weights.safetensors"
ALIGNMENT_FILE = "alignment.safetensors"
TSL_FILE = "tsl.safetensors"
FILES = (CARD_FILE, WEIGHTS_FILE, ALIGNMENT_FILE)
"""Of every teacher, in the order in which a keyed digest reads them; `TSL_FILE` comes after them
where there is one."""


def require_free(folder: Path) -> None:
    """Raises UserError when something is there that a new teacher would overwrite."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder} already exists and is not empty; name another folder, or delete it yourself"
        )


def write_folder(
    folder: Path,
    card: TeacherCard,
    weights: Mapping[str, Tensor],
    alignments: Mapping[str, Alignment],
    extra: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a teacher; `extra` are further files by name. Raises UserError (`require_free`).

    `weights`: parameter, buffer or part of a layer (`ktan.teachers.tsl`) → [k, ...].
    """
    require_free(folder)
    contents = folder_contents(card, weights, alignments)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(mode=0o700)
    try:
        for name, content in {**contents, **(extra or {})}.items():
            write_durably(temporary / name, content, mode=0o600)
        # An empty folder is replaced by the rename; a file or a full one is not.
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def folder_contents(
    card: TeacherCard, weights: Mapping[str, Tensor], alignments: Mapping[str, Alignment]
) -> dict[str, bytes]:
    """File name → content, in the order of `FILES` and `TSL_FILE`."""
    aligned: dict[str, Tensor] = {}
    for name, alignment in alignments.items():
        aligned[f"{name}.centre"] = alignment.centre
        aligned[f"{name}.matrix"] = alignment.matrix
    contents = {
        CARD_FILE: (json.dumps(card.to_json(), indent=2) + "\n").encode(),
        WEIGHTS_FILE: safetensors.torch.save(_plain(without_layers(weights))),
        ALIGNMENT_FILE: safetensors.torch.save(_plain(aligned)),
    }
    layers = layers_only(weights)
    if layers:
        contents[TSL_FILE] = safetensors.torch.save(_plain(layers))
    return contents


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Networks and layers as one state, name → [k, ...]. Raises UserError (`read_tensors`)."""
    weights = read_tensors(folder, WEIGHTS_FILE)
    if (folder / TSL_FILE).exists():
        weights |= read_tensors(folder, TSL_FILE)
    return weights


def read_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one file, on the CPU. Raises UserError when it is missing or damaged."""
    path = folder / name
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no whole teacher: {name} is missing") from error
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def read_alignments(folder: Path) -> dict[str, Alignment]:
    """Tap name → alignment, for the hints that have one."""
    tensors = read_tensors(folder, ALIGNMENT_FILE)
    names = [name.removesuffix(".centre") for name in tensors if name.endswith(".centre")]
    try:
        return {n: Alignment(tensors[f"{n}.centre"], tensors[f"{n}.matrix"]) for n in names}
    except KeyError as error:
        raise UserError(f"{folder / ALIGNMENT_FILE} is damaged: no {error}") from error


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU: safetensors refuses shared and strided memory."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
