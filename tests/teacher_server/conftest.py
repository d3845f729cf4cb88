"""The running service and a fresh ledger are fixtures of every test in this folder."""

from collections.abc import Iterator

import pytest

from privacy.budget import open_plan
from privacy.ledger import Ledger
from tests.teacher_server.running_service import certificates, service, table_service

__all__ = ["certificates", "service", "table_service"]


@pytest.fixture
def ledger(tmp_path) -> Iterator[Ledger]:
    with Ledger.create(
        tmp_path / "ledger",
        dataset_id="stand-in",
        plan=open_plan(8.0, 1e-5),
        witness=tmp_path / "witness" / "head.json",
    ) as ledger:
        yield ledger
