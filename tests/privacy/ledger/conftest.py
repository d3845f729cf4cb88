"""A ledger in a folder of its own, its witness in another: one suite for every database.

`place` is on SQLite and on PostgreSQL in turn, so that every test that takes it runs on both. A
test of SQLite's own files says so: `@pytest.mark.parametrize("place", ["sqlite"], indirect=True)`.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from privacy.budget import BudgetPlan, open_plan
from privacy.composition import DpSgdRun
from privacy.ledger import Ledger, PendingAnswer, Settlement, store
from privacy.ledger.database import URL_FILE, Database
from privacy.ledger.postgresql import PostgresSchema


@dataclass
class Place:
    """Where a ledger lives, and short ways to use it. database_url: None for SQLite."""

    folder: Path
    witness: Path
    database_url: str | None = None
    schemas: list[PostgresSchema] = field(default_factory=list)

    def create(self, plan: BudgetPlan, **options: Any) -> Ledger:
        ledger = Ledger.create(
            self.folder,
            dataset_id="glyphs",
            plan=plan,
            witness=self.witness,
            database_url=self.database_url,
            **options,
        )
        self.schemas += [server] if (server := Database.of(self.folder).server) else []
        return ledger

    def open(self, **options: Any) -> Ledger:
        return Ledger.open(self.folder, witness=self.witness, **options)

    def change(self, statement: str) -> int:
        """Changes the tables behind the ledger's back; how many rows it touched."""
        engine = Database.of(self.folder).writable().execution_options(**{store.WRITING: True})
        try:
            with engine.begin() as connection:
                return connection.exec_driver_sql(statement).rowcount
        finally:
            engine.dispose()

    def bodies(self) -> list[bytes]:
        """The canonical bytes of every entry."""
        engine = Database.of(self.folder).readable()
        with engine.connect() as connection:
            return [body for _, _, body in store.read_entries(connection)]

    def copy(self, name: str) -> Path:
        """A backup of the (closed) ledger's folder, as an administrator's tools would make one."""
        target = self.folder.with_name(name)
        shutil.copytree(self.folder, target)
        server = Database.of(self.folder).server
        if server is not None:
            twin = PostgresSchema(server.url, f"{server.schema}_{name}")
            (target / URL_FILE).write_text(twin.to_text())
            self.schemas.append(twin)
            twin.create()
            for table in store.metadata.sorted_tables:
                there, here = f"{twin.schema}.{table.name}", f"{server.schema}.{table.name}"
                self.change(f"CREATE TABLE {there} (LIKE {here} INCLUDING ALL)")
                self.change(f"INSERT INTO {there} SELECT * FROM {here}")
        return target

    def restore(self, backup: Path) -> None:
        server = Database.of(self.folder).server
        if server is None:
            shutil.rmtree(self.folder)
            shutil.copytree(backup, self.folder)
            return
        kept = Database.of(backup).server
        for table in store.metadata.sorted_tables:
            self.change(f"TRUNCATE {table.name}")
            self.change(f"INSERT INTO {table.name} SELECT * FROM {kept.schema}.{table.name}")


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
        stored: bool = False,
    ) -> PendingAnswer:
        key = ledger.sample_key(sample.encode(), "v1", b"settings")
        return PendingAnswer(key, charge, draws, payload or f"noisy {sample}".encode(), stored)

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


@pytest.fixture(params=["sqlite", "postgresql"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    url = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    place = Place(tmp_path / "host" / "ledger", tmp_path / "elsewhere" / "head.json", url)
    yield place
    for schema in place.schemas:
        schema.drop()


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
