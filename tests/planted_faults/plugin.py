"""A pytest plugin that plants one fault: `-p tests.planted_faults.plugin --plant NAME`."""

import pytest

from tests.planted_faults.register import FAULTS, NOTHING


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plant", choices=[NOTHING, *sorted(FAULTS)], required=True)


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--plant")
    if name != NOTHING:
        FAULTS[name].plant()
