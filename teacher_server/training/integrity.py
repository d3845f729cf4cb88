"""A keyed digest over a teacher's files, made and checked on the secure host.

Keyed by the ledger's secret, never a plain digest: training is deterministic, so that a digest of
the weights would itself be a release.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ktan.errors import UserError
from ktan.teachers import FILES, TSL_FILE, WEIGHTS_FILE
from privacy.ledger import Ledger

MAC_FILE = "files.mac"

Mac = Callable[[Iterable[bytes]], str]


def seal(contents: Mapping[str, bytes], mac: Mac) -> bytes:
    """What `MAC_FILE` holds for these files (name → content)."""
    names = [*FILES, TSL_FILE] if TSL_FILE in contents else FILES
    return (mac(_framed((name, contents[name]) for name in names)) + "\n").encode()


def weights_mac(contents: Mapping[str, bytes], mac: Mac) -> str:
    """Names the weights among these files in a training charge.

    The networks' weights alone: card, alignments and teacher-to-student layers follow from them and
    from public data, and may differ in their last bits where they are computed again on another
    machine.
    """
    return mac(_framed([(WEIGHTS_FILE, contents[WEIGHTS_FILE])]))


def verify_charged(folder: Path, version: str, ledger: Ledger) -> None:
    """Raises UserError unless the ledger was charged for this teacher and for these weights."""
    charge = ledger.training_of(version)
    if charge is None:
        raise UserError(f"the training of the teacher in {folder} was never charged")
    found = weights_mac({WEIGHTS_FILE: (folder / WEIGHTS_FILE).read_bytes()}, ledger.mac)
    # None: charged by an older program, which named the run alone.
    if charge.weights is not None and not hmac.compare_digest(charge.weights, found):
        raise UserError(
            f"the training of teacher {version} was charged for other weights than those in "
            f"{folder}, which come of another copy of the same unfinished training: serve the "
            "folder that was written under the charge, delete this one, and train anew with "
            "another reserved run"
        )


def verify_folder(folder: Path, mac: Mac) -> None:
    """Raises UserError unless the teacher's files are those that were sealed under this ledger."""
    try:
        sealed = (folder / MAC_FILE).read_text(encoding="utf-8").strip()
        # Under the seal of a teacher with layers their absence shows, as any other change does.
        names = [*FILES, TSL_FILE] if (folder / TSL_FILE).exists() else FILES
        found = mac(_framed((name, (folder / name).read_bytes()) for name in names))
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no whole teacher: {error.filename} is missing") from error
    if not hmac.compare_digest(sealed, found):
        raise UserError(
            f"the files in {folder} were changed after training, or belong to another ledger; "
            "restore them, or train a new teacher"
        )


def _framed(files: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """Name and length before each content: no two sets of files have one byte string."""
    for name, content in files:
        yield f"{name}\n{len(content)}\n".encode()
        yield content
