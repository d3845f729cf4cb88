"""One audited ledger for all tests: they tamper with copies of its lines, never with its files."""

import pytest

from tests.privacy.audit.audited import Case, audited


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return audited(tmp_path_factory.mktemp("audited"))
