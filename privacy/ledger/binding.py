"""The ledger's id, written beside the private data: a data set has one ledger for ever.

A second ledger for the same records would be a second budget for them. The binding is a small
file inside the data's folder (`ktan.ledger.json`) or beside their file (`NAME.ledger.json`); it
holds nothing private.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privacy import canonical_json
from privacy.canonical_json import digest, exactly, text
from privacy.errors import LedgerExists, LedgerMismatch, LedgerMissing
from privacy.ledger.durable import create_durably

_SUFFIX: Final = ".ledger.json"
_INSIDE: Final = f"ktan{_SUFFIX}"


@dataclass(frozen=True)
class Binding:
    """Which ledger the data belong to. public_key: raw Ed25519, 32 bytes."""

    ledger_id: str
    dataset_id: str
    public_key: bytes


def binding_path(data: Path) -> Path:
    """Where the binding of `data` stands: inside a folder, so that it moves along; beside a file.

    Links are followed to the data.
    """
    place = data.resolve()
    return place / _INSIDE if place.is_dir() else place.with_name(f"{place.name}{_SUFFIX}")


def read_binding(data: Path) -> Binding | None:
    """The binding of the data at `data`; None when they have none.

    Raises LedgerMismatch when the file is there and cannot be read: never taken for "none".
    """
    path = binding_path(data)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        value = exactly(
            canonical_json.decode(content.strip()),
            frozenset({"ledger_id", "dataset_id", "public_key"}),
        )
        return Binding(
            text(value["ledger_id"]), text(value["dataset_id"]), digest(value["public_key"])
        )
    except ValueError as error:
        raise LedgerMismatch(
            f"{path} names the ledger of these data, but cannot be read ({error}); restore it"
        ) from None


def bind(data: Path, ledger_id: str, dataset_id: str, public_key: bytes) -> None:
    """Binds the data to a ledger; binding them to the same ledger again changes nothing.

    Raises LedgerExists when they belong to another ledger; of two at once exactly one succeeds.
    """
    wanted = Binding(ledger_id, dataset_id, public_key)
    body = {"ledger_id": ledger_id, "dataset_id": dataset_id, "public_key": public_key.hex()}
    path = binding_path(data)
    # Data that are generated have no folder yet.
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        create_durably(path, canonical_json.encode(body) + b"\n")
    except FileExistsError:
        found = read_binding(data)
        if found != wanted:
            raise LedgerExists(_bound(data, found)) from None


def overlapping_binding(data: Path) -> Path | None:
    """The file that binds the data at `data`, a folder around them, or something within them.

    None where no ledger knows of any of these records; a copy cannot be seen. Raises LedgerMismatch
    as `read_binding` does.
    """
    if read_binding(data) is not None:
        return binding_path(data)
    place = data.resolve()
    around = (folder / _INSIDE for folder in place.parents)
    within = place.rglob(f"*{_SUFFIX}") if place.is_dir() else iter(())
    return next((other for other in (*around, *within) if other.is_file()), None)


def require_unbound(data: Path) -> None:
    """Raises LedgerExists when the data at `data` belong to a ledger already.

    So do data inside a bound folder, and a folder that holds bound data: a second budget for a
    part of the records, or for more than them, is a second budget. A copy cannot be seen.
    """
    found = read_binding(data)
    if found is not None:
        raise LedgerExists(_bound(data, found))
    other = overlapping_binding(data)
    if other is not None:
        raise LedgerExists(
            f"{data} shares records with data that belong to a ledger already ({other}): a "
            "second ledger would be a second budget for them; open that one"
        )


def require_bound(data: Path, ledger_id: str) -> None:
    """Returns when the data at `data` belong to this ledger.

    Raises LedgerMissing when they are bound to none, LedgerMismatch when to another one.
    """
    found = read_binding(data)
    if found is None:
        raise LedgerMissing(
            f"{data} is bound to no ledger ({binding_path(data)} is missing); a ledger is opened "
            "once, before the first teacher is trained"
        )
    if found.ledger_id != ledger_id:
        raise LedgerMismatch(
            f"{data} belongs to ledger {found.ledger_id}, not to {ledger_id}; name the folder of "
            "the ledger that these data were bound to"
        )


def _bound(data: Path, found: Binding | None) -> str:
    owner = found.ledger_id if found else "unknown"
    return (
        f"{data} belongs to ledger {owner} already ({binding_path(data)}): a second ledger would "
        "be a second budget for the same records; open that one"
    )
