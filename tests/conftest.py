"""What every part of the tests may ask for."""

import os
import random
import secrets
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import URL, make_url

# A slow host is no fault of a test.
settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("patient")

_CAUGHT = "planted fault"

POSTGRESQL = os.environ.get(
    "KTAN_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
)


@pytest.fixture(scope="session")
def postgresql() -> str:
    """The URL of a PostgreSQL database that the tests may make schemas in."""
    url: URL = make_url(POSTGRESQL)
    try:
        psycopg.connect(
            host=url.host, port=url.port, user=url.username, password=url.password,
            dbname=url.database, connect_timeout=60,
        ).close()  # fmt: skip
    except psycopg.OperationalError:
        pytest.skip(f"no PostgreSQL at {url.host}:{url.port}; KTAN_TEST_POSTGRESQL names another")
    return POSTGRESQL


@pytest.fixture
def chance() -> random.Random:
    """Where and when this run strikes: other choices in every run, unless KTAN_TEST_SEED is set.

    The seed is in the output of a test that fails. It repeats the choices, not the timing.
    """
    seed = int(os.environ.get("KTAN_TEST_SEED") or secrets.randbits(32))
    print(f"KTAN_TEST_SEED={seed} repeats the choices of this run")
    return random.Random(seed)


@pytest.fixture
def caught(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Fault that was planted on purpose → what caught it; printed at the end of the run."""
    found: dict[str, str] = {}
    yield found
    # With the test's report, which reaches the end of the run from whichever process it ran in.
    request.node.user_properties += [(_CAUGHT, fault) for fault in found.items()]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for group in terminalreporter.stats.values() for report in group]
    kept = [item for report in reports for item in getattr(report, "user_properties", ())]
    found = dict(value for name, value in kept if name == _CAUGHT)
    if found:
        terminalreporter.section("planted faults: what caught each")
        width = max(map(len, found))
        for name, what in sorted(found.items()):
            terminalreporter.write_line(f"{name:<{width}}  {what}")
