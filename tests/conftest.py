"""What every part of the tests may ask for."""

import os

import psycopg
import pytest
from sqlalchemy import URL, make_url

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
            dbname=url.database, connect_timeout=5,
        ).close()  # fmt: skip
    except psycopg.OperationalError:
        pytest.skip(f"no PostgreSQL at {url.host}:{url.port}; KTAN_TEST_POSTGRESQL names another")
    return POSTGRESQL
