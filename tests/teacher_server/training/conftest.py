import dataclasses
import hashlib

import pytest
import torch

from ktan.data import DataSource, SplitRecipe, split
from privacy.budget import BudgetPlan
from privacy.composition import DpSgdRun
from teacher_server.training import Custody

RUN = DpSgdRun(sample_rate=0.1, noise_multiplier=1.0, steps=20)
PLAN = BudgetPlan(8.0, 1e-5, "record", answer_units=0, draws=0, training=(RUN,))
RECIPE = SplitRecipe(private=600, labelled=60, unlabelled=200, test=100)


@dataclasses.dataclass
class FakeLedger:
    """Stands in for a ledger: counts charges by version."""

    charged: list[str] = dataclasses.field(default_factory=list)
    plan: BudgetPlan = PLAN

    def custody(self) -> Custody:
        return Custody("ab" * 16, self.plan, RUN, self._charge, self._mac)

    def _charge(self, version: str, _weights: str) -> None:
        if version not in self.charged:
            self.charged.append(version)

    def _mac(self, chunks) -> str:
        return hashlib.sha256(b"key" + b"".join(chunks)).hexdigest()


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A small data set and its split."""
    dataset = DataSource("fake", tmp_path_factory.mktemp("data"), size=1000).load()
    return dataset, split(dataset, RECIPE)
