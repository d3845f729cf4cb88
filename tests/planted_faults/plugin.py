"""A pytest plugin that plants one fault: `-p tests.planted_faults.plugin --plant NAME`."""

import pytest

from tests.planted_faults.faults import Fault
from tests.planted_faults.register import FAULTS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plant", choices=sorted(FAULTS), required=True)


def pytest_configure(config: pytest.Config) -> None:
    fault: Fault = FAULTS[config.getoption("--plant")]
    fault.plant()
