"""The scenarios of `benchmarks.faults` that are over in seconds, each once: the promise is kept.

What each does to the servers, and what is looked at afterwards, is written there.
"""

import subprocess
from collections.abc import Iterator

import pytest

from benchmarks.faults import scenarios
from benchmarks.faults.books import read_books
from benchmarks.faults.clock import Clock
from benchmarks.faults.database import own_database
from benchmarks.faults.servers import zygote
from benchmarks.faults.stage import FAILING, Stage, stage
from privacy.ledger import Ledger


@pytest.fixture(scope="module")
def forking() -> Iterator[subprocess.Popen[str]]:
    with zygote() as process:
        yield process


def require_kept(scene: Stage, requests: int) -> None:
    books = scene.finish(asked_again=20)
    assert books.broken == ()
    assert len(scene.heard.requests) > requests


def times(scene: Stage) -> list[str]:
    """Of the ledger's entries, in the order of the chain."""
    with Ledger.open(scene.hosts[0], witness=scene.witness, read_only=True) as ledger:
        return [entry.time for entry in ledger.entries(1)]


def test_what_was_accepted_before_sigterm_is_answered(tmp_path, forking, chance) -> None:
    with stage(tmp_path, forking=forking, clients=8, chance=chance) as scene:
        scenarios.drained(scene, times=2, requests=20)
        require_kept(scene, 60)
        require_told(scene)


def require_told(scene: Stage) -> None:
    """Books that kept the promise break it as soon as clients say something else."""
    heard = scene.heard

    def told() -> str:
        return " ".join(read_books(scene.hosts[0], scene.witness, heard).broken)

    serial, found = heard.answers.popitem()
    assert "units were spent" in told()
    heard.answers[serial] = {bytes(8)}
    assert f"the answer to sample {serial} is not the stored one" in told()
    heard.answers[serial] = {*found, bytes(8)}
    assert f"{serial} got 2 answers" in told()
    heard.answers[serial] = found
    request_id, serials = heard.requests.popitem()
    assert "1 that have one were never answered" in told()
    heard.requests |= {request_id: serials, "unknown": serials}
    assert "1 that were answered have none" in told()
    del heard.requests["unknown"]
    assert told() == ""


def test_connections_that_the_database_ends(tmp_path, forking, postgresql, chance) -> None:
    with (
        own_database(postgresql) as database,
        stage(
            tmp_path, forking=forking, hosts=2, database_url=database.url, clients=3,
            passing=FAILING, chance=chance,
        ) as scene,
    ):  # fmt: skip
        scenarios.lost_connections(scene, database, times=2, requests=20)
        require_kept(scene, 80)


def test_files_that_cannot_grow(tmp_path, forking, chance) -> None:
    with stage(tmp_path, forking=forking, clients=2, passing=FAILING, chance=chance) as scene:
        scenarios.limited_file(scene)
        assert scene.heard.refusals["INTERNAL LEDGER_FAULT"] > 0
        # Whatever starts services again where they failed must see that this one did.
        assert scene.ends == {2: 1}
        require_kept(scene, 40)


def test_a_witness_whose_storage_goes_away(tmp_path, forking, chance) -> None:
    with stage(tmp_path, forking=forking, clients=2, passing=FAILING, chance=chance) as scene:
        scenarios.lost_witness(scene, requests=20)
        require_kept(scene, 40)


def test_a_clock_that_is_turned(tmp_path, chance) -> None:
    try:
        clock = Clock(tmp_path)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with zygote(clock) as turned, stage(tmp_path, forking=turned, chance=chance) as scene:
        scenarios.turned_clock(scene, clock, requests=20)
        require_kept(scene, 80)
        dated = times(scene)
    # It was: three days back, and ten years on.
    assert dated != sorted(dated)
    assert int(max(dated)[:4]) - int(min(dated)[:4]) >= 9
