"""The rehearsal's own ledger: real in every respect, and of no data.

Production has no bypass through here: a ledger that was opened for data is refused, and a ledger
that was opened here is bound to no data, so that no teacher can ever be trained or served under it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ktan.errors import UserError
from privacy.budget import BudgetPlan
from privacy.ledger import Ledger
from teacher_server.ledger_folder import SPLIT_FILE, naming

DATASET: Final = "rehearsal"
"""What the ledger is opened for. A data set's id has a slash in it, so that none is called so."""


def open_throw_away(folder: Path, plan: BudgetPlan, database_url: str | None) -> Ledger:
    """The rehearsal's ledger in `folder`: a new one, or the one that was left there.

    database_url: PostgreSQL for a new ledger's tables. Its witness stands beside the folder. Raises
    UserError when the ledger there belongs to data, or was opened with another plan; a LedgerError
    as `Ledger.open` does.
    """
    witness = folder.resolve().with_name(f"{folder.name}.witness.json")
    if not folder.exists() or not any(folder.iterdir()):
        return Ledger.create(
            folder,
            dataset_id=DATASET,
            plan=plan,
            witness=witness,
            files=naming(witness),
            database_url=database_url,
        )
    if (folder / SPLIT_FILE).exists():
        raise UserError(_refusal(folder))
    ledger = Ledger.open(folder, witness=witness)
    if ledger.dataset_id != DATASET:
        ledger.close()
        raise UserError(_refusal(folder))
    if ledger.plan != plan:
        ledger.close()
        raise UserError(
            f"the rehearsal's ledger in {folder} was opened with another budget; give the options "
            "of then, or a new folder"
        )
    return ledger


def _refusal(folder: Path) -> str:
    return (
        f"{folder} is the ledger of a private data set, and a rehearsal would spend its budget; "
        "name a new folder for a throw-away ledger"
    )
