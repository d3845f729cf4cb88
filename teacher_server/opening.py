"""Opens the one ledger of a private data set, with the plan that it enforces for ever."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ktan.errors import UserError
from privacy import composition
from privacy.budget import BudgetPlan, open_plan, settle_draws
from privacy.composition import DpSgdRun
from privacy.ledger import Ledger
from privacy.ledger.witness import read_heads
from privacy.noise import DEFAULT_NOISE, NoiseName, closeness
from privacy.receipts import Receipt, SignedHead
from teacher_server.caps import cap_units
from teacher_server.ledger_folder import SPLIT_FILE, naming, witness_of

if TYPE_CHECKING:
    from ktan.data import Dataset, Split


@dataclass(frozen=True)
class PlanOptions:
    """The promise, and what is reserved for training."""

    epsilon: float
    """ε of everything that is ever learnt from this data set, all clients together."""
    delta: float = 1e-5
    """δ of the same promise; well under one over the number of units."""
    unit: str | None = None
    """What the promise protects: must be said where the data give unit ids, which name persons,
    say; `record` where they give none."""
    draws: int | None = None
    """Noise draws of the ledger's whole life, one per released number; set from ε and δ when not
    given."""
    training_epsilon: float | None = None
    """Part of ε that the reserved DP-SGD runs may use; all of it leaves no budget for answers."""
    training_runs: int = 1
    """DP-SGD runs to reserve, tuning runs included."""
    batch_size: int = 1000
    """Expected batch of a reserved DP-SGD run, in records."""
    epochs: float = 10.0
    """Expected passes of a reserved DP-SGD run over the private records."""
    client_epsilon: float | None = None
    """ε that any one client may reach on its own, at the same δ; no cap but the budget when not
    given."""
    noise: NoiseName = DEFAULT_NOISE
    """The noise's sampler, whose error the plan sets aside; any closer one may be served too."""


def _beside(dataset: Dataset, kind: str) -> Path:
    """The file beside the data that holds `kind`."""
    return dataset.location.with_name(f"{dataset.location.name}.{kind}.json")


def build_plan(options: PlanOptions, dataset: Dataset, private_records: int) -> BudgetPlan:
    """The ledger's plan. Raises UserError or InvalidPlan where the parts contradict each other.

    private_records: of a reserved DP-SGD run; public, as it protects records and no larger unit.
    """
    unit = options.unit or ("record" if dataset.records_are_units else None)
    if unit is None:
        raise UserError(
            f"{dataset.name} gives unit ids: say with --unit what they name (--unit person, "
            "--unit account; --unit record where each numbers one record). The promise is worded "
            "so for ever"
        )
    close = closeness(options.noise)
    if options.training_epsilon is None:
        return open_plan(
            options.epsilon, options.delta, unit=unit, draws=options.draws, closeness=close
        )
    if unit != "record":
        raise UserError(
            f"dp-sgd protects one record, and a {unit} of {dataset.name} may have several: say "
            "--unit record to promise that and no more, or leave out --training-epsilon"
        )
    if not 0 < options.training_epsilon <= options.epsilon:
        raise UserError(
            f"--training-epsilon {options.training_epsilon:g} must lie above 0 and within "
            f"--epsilon {options.epsilon:g}"
        )
    if not 0 < options.batch_size <= private_records:
        raise UserError(
            f"--batch-size {options.batch_size} must lie between 1 and the {private_records} "
            "private records"
        )
    if options.epochs <= 0 or options.training_runs < 1:
        raise UserError("--epochs must be above 0 and --training-runs at least 1")
    all_for_training = options.training_epsilon == options.epsilon
    draws = 0 if all_for_training else options.draws
    rate = options.batch_size / private_records
    steps = math.ceil(options.epochs / rate)
    _, left = settle_draws(options.epsilon, options.delta, draws, close)
    noise = composition.noise_multiplier(
        options.training_epsilon, left, rate, steps, runs=options.training_runs
    )
    runs = (DpSgdRun(rate, noise, steps),) * options.training_runs
    return open_plan(
        options.epsilon, options.delta, unit=unit, draws=draws, training=runs, closeness=close
    )


def open_ledger(
    dataset: Dataset,
    parts: Split,
    plan: BudgetPlan,
    folder: Path,
    witness: Path | None,
    client_epsilon: float | None,
    database_url: str | None = None,
) -> Ledger:
    """A new ledger in `folder`, bound to the data, with the split that it was opened for.

    client_epsilon: what any one client may reach on its own; None for no cap but the budget.
    database_url: of a PostgreSQL database for the tables; None for a SQLite file in `folder`.
    Raises LedgerExists when the data set already has one, wherever that is.
    """
    witness = (witness or _beside(dataset, "ledger-head")).resolve()
    return Ledger.create(
        folder,
        dataset_id=dataset.id,
        plan=plan,
        witness=witness,
        default_cap=None if client_epsilon is None else cap_units(plan, client_epsilon),
        data=dataset.location,
        database_url=database_url,
        files={
            **naming(witness),
            SPLIT_FILE: (json.dumps(parts.to_json(), indent=2) + "\n").encode(),
        },
    )


def reopen_ledger(
    folder: Path,
    witness: Path | None,
    *,
    read_only: bool = False,
    trusted: Path | None = None,
) -> Ledger:
    """The ledger in `folder`, with the witness file it was opened with unless another is named.

    trusted: file with a client's receipt or an auditor's head, in place of a lost witness.
    """
    if witness is None:
        try:
            witness = witness_of(folder)
        except FileNotFoundError:
            # Ledger.open says what is missing when it is the ledger itself.
            witness = Path("witness-not-named")
    head = None if trusted is None else _read_trusted(trusted)
    return Ledger.open(folder, witness=witness, read_only=read_only, trusted_head=head)


def _read_trusted(path: Path) -> SignedHead | Receipt:
    content = path.read_bytes().strip()
    with suppress(ValueError):
        # The copy of a witness.
        return read_heads(content)[0]
    for kind in (SignedHead, Receipt):
        try:
            return kind.from_json(json.loads(content))
        except ValueError:
            continue
    raise UserError(f"{path} holds neither a signed head nor a receipt of a ledger")
