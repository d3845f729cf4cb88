"""`teacher-server open-ledger`: the one ledger of a private data set, with its budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ktan.data import DataSource, SplitRecipe, split
from privacy.ledger import binding_path
from teacher_server import opening
from teacher_server.commands.data_options import Data, Recipe
from teacher_server.commands.options import Flag
from teacher_server.commands.screen import print_facts
from teacher_server.ledger_folder import WITNESS_PATH, witness_of

Plan = Annotated[opening.PlanOptions, Parameter(name="*", group="Promise")]
_DATA = DataSource()
_RECIPE = SplitRecipe()


def open_ledger(
    *,
    ledger: Path,
    plan: Plan,
    data: Data = _DATA,
    recipe: Recipe = _RECIPE,
    witness: Path | None = None,
    database_url: str | None = None,
    json: Flag = False,
) -> None:
    """Open the one ledger of a private data set, with the budget it will enforce for ever.

    The ledger's id is written into the data's folder or beside their file; a second is refused.

    Parameters
    ----------
    ledger
        Folder that gets the ledger, its keys and its answers; keep it off the data's disk.
    witness
        File on other storage that keeps the last signed head, against a rolled-back ledger;
        beside the data when not given. Storage that all replicas share, with a database URL.
    database_url
        postgresql://USER@HOST:PORT/DATABASE for the ledger's tables, so that several replicas may
        serve; a SQLite file in the ledger's folder when not given. The password may stand in
        libpq's password file instead.
    json
        Print one JSON object.
    """
    dataset = data.load()
    parts = split(dataset, recipe)
    checked = opening.build_plan(plan, dataset, len(parts.private))
    opened = opening.open_ledger(
        dataset, parts, checked, ledger, witness, plan.client_epsilon, database_url
    )
    units = parts.counts
    with opened:
        state = opened.budget(None)
        print_facts(
            {
                "ledger": opened.ledger_id,
                "dataset": dataset.id,
                "private_units": units["private"],
                "public_units": sum(units.values()) - units["private"],
                "public_means": "not protected: reference network, bounds, alignment, evaluation",
                "promise": state.promise.sentence(),
                "answering_mu": opened.plan.mu_max,
                "noise_draws": opened.plan.draws,
                "reserved_training": [run.to_json() for run in opened.plan.training],
                "bound_at": str(binding_path(dataset.location)),
                **_of_witness(ledger, in_folder=database_url is None),
            },
            json,
        )


def _of_witness(ledger: Path, *, in_folder: bool) -> dict[str, str]:
    """Where the witness is, and whether that is a bad place; in_folder: the tables are there."""
    witness = witness_of(ledger)
    facts = {"witness": str(witness)}
    if in_folder and witness.stat().st_dev == ledger.stat().st_dev:
        facts["witness_storage"] = (
            "the ledger's own device, which when restored takes both back unseen: move the file to "
            f"other storage, and write its new path into {ledger / WITNESS_PATH}"
        )
    return facts
