"""Keeps what caught each planted fault, and prints it at the end of the run."""

import pytest

_CAUGHT: dict[str, str] = {}


@pytest.fixture
def caught() -> dict[str, str]:
    """Fault → the tests that failed."""
    return _CAUGHT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _CAUGHT:
        terminalreporter.section("planted faults: what caught each")
        width = max(map(len, _CAUGHT))
        for name, tests in sorted(_CAUGHT.items()):
            terminalreporter.write_line(f"{name:<{width}}  {tests}")
