"""Several answer stores of one teacher, as one: each process, or each machine, wrote its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ktan.answers import AnswerStore
from ktan.errors import UserError
from privacy.receipts import Receipt
from student_client.ledger_history import Contradiction, History
from student_client.pin import Pin


@dataclass(frozen=True)
class Merged:
    """What a store holds after others were put into it."""

    samples: int
    requests: int
    """Of all whose answers are here."""
    new: int
    """Of those, the ones that came now."""
    begun: int
    """Requests under way; the next run sends them again, free if they were charged."""


def merge_stores(into: Path, sources: Sequence[Path]) -> Merged:
    """Puts the answers and receipts of `sources` into the store `into`, made where it is not there.

    The sources stay as they are. Nothing is written before all of them are known to be of one
    teacher version, ledger, promise and price, and their receipts to fit one another. Cut off, the
    same call goes on. Raises UserError otherwise.
    """
    if not sources:
        raise UserError("name at least one answers folder to take answers from")
    there = [folder for folder in (into, *sources) if folder != into or Pin.read(into)]
    pin = _common_pin(there)
    stores = [AnswerStore.open(folder, read_only=True) for folder in there]
    for store in stores[1:]:
        if store.manifest != stores[0].manifest:
            raise UserError(stores[0].manifest.difference(store.manifest, stores[0].folder))
    _require_one_history(stores)
    target = AnswerStore.open(into, stores[0].manifest)
    if pin != Pin.read(into):
        pin.write(into)
    new = sum(target.adopt(store) for store in stores if store.folder != into)
    target.fold()
    requests = sum(1 for _ in target.receipts())
    return Merged(len(target), requests, new, len(target.pending()))


def _common_pin(folders: Sequence[Path]) -> Pin:
    """The one that knows most keys. Raises UserError where two are not of one ledger."""
    common: Pin | None = None
    for folder in folders:
        pin = Pin.read(folder)
        if pin is None:
            raise UserError(f"{folder} holds no answers of a service (no service.json)")
        if common is None:
            common = pin
            continue
        shorter, longer = sorted((common, pin), key=lambda one: len(one.keys.keys))
        facts = [(one.ledger_id, one.promise, one.charge, one.charges) for one in (shorter, longer)]
        count = len(shorter.keys.keys)
        if facts[0] != facts[1] or longer.keys.keys[:count] != shorter.keys.keys:
            raise UserError(
                f"{folder} and {folders[0]} hold answers of different services (ledger, key, "
                "promise or price); keep them apart"
            )
        common = longer
    assert common is not None
    return common


def _require_one_history(stores: Sequence[AnswerStore]) -> None:
    history = History()
    for store in stores:
        for values in store.receipts():
            try:
                history.add(Receipt.from_json(values))
            except Contradiction as error:
                raise UserError(
                    f"the receipts of {store.folder} contradict those of another store: {error}"
                ) from error
