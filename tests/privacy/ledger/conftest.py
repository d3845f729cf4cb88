"""A ledger in a folder of its own, its witness in another."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from privacy.budget import BudgetPlan, open_plan
from privacy.composition import DpSgdRun
from privacy.ledger import Ledger, PendingAnswer, Settlement


@dataclass
class Place:
    """Where a ledger lives, and short ways to use it."""

    folder: Path
    witness: Path

    def create(self, plan: BudgetPlan, **options: Any) -> Ledger:
        return Ledger.create(
            self.folder, dataset_id="glyphs", plan=plan, witness=self.witness, **options
        )

    def open(self, **options: Any) -> Ledger:
        return Ledger.open(self.folder, witness=self.witness, **options)

    def copy(self, name: str) -> Path:
        """A backup of the (closed) ledger's folder."""
        target = self.folder.with_name(name)
        shutil.copytree(self.folder, target)
        return target

    def restore(self, backup: Path) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(backup, self.folder)


class Asker:
    """Asks a ledger for samples by name, as a service would."""

    content = b"c" * 32

    @staticmethod
    def pending(
        ledger: Ledger,
        sample: str,
        payload: bytes | None = None,
        charge: int = 100,
        draws: int = 10,
    ) -> PendingAnswer:
        key = ledger.sample_key(sample.encode(), "v1", b"settings")
        return PendingAnswer(key, charge, draws, payload or f"noisy {sample}".encode())

    def settle(
        self,
        ledger: Ledger,
        request_id: str,
        *samples: str,
        client: str = "alice",
        **options: Any,
    ) -> Settlement:
        pending = [self.pending(ledger, sample, **options) for sample in samples]
        return ledger.settle(client, request_id, self.content, pending, "v1")


@pytest.fixture
def asker() -> Asker:
    return Asker()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "host" / "ledger", tmp_path / "elsewhere" / "head.json")


@pytest.fixture
def plan() -> BudgetPlan:
    return open_plan(4.0, 1e-5)


@pytest.fixture(scope="session")
def training_plan() -> BudgetPlan:
    """Two equal runs and one other, and 10,000 units beside them; their sum is far under ε."""
    runs = (DpSgdRun(0.01, 4.0, 10), DpSgdRun(0.01, 4.0, 10), DpSgdRun(0.02, 8.0, 20))
    return BudgetPlan(2.0, 1e-5, "record", 10_000, 1000, runs)


@pytest.fixture
def ledger(place: Place, plan: BudgetPlan) -> Iterator[Ledger]:
    with place.create(plan) as ledger:
        yield ledger


@pytest.fixture
def small_ledger(place: Place) -> Callable[..., Ledger]:
    """Makes a ledger of exactly so many units and draws."""

    def make(units: int, draws: int = 10_000, **options: Any) -> Ledger:
        return place.create(BudgetPlan(4.0, 1e-5, "record", units, draws), **options)

    return make
