"""What torchrun starts again goes on by itself; what was refused is refused again."""

import pytest

from ktan.parallel import ONE, Group
from ktan.ranks import Ranks
from student_client.restarts import is_own_restart, note_start

FIRST = Group(Ranks(0, 2))
AGAIN = Group(Ranks(0, 2), restarted=True)


@pytest.fixture
def job(monkeypatch):
    return lambda name: monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)


def test_a_further_attempt_of_the_same_job_goes_on(tmp_path, job):
    job("one")
    assert not is_own_restart(tmp_path, AGAIN)
    note_start(tmp_path, FIRST)
    assert is_own_restart(tmp_path, AGAIN)
    assert not is_own_restart(tmp_path, FIRST)


def test_a_run_of_another_job_is_not_gone_on_with(tmp_path, job):
    job("one")
    note_start(tmp_path, FIRST)
    job("two")
    assert not is_own_restart(tmp_path, AGAIN)


def test_only_the_first_of_several_processes_notes_it(tmp_path, job):
    job("one")
    note_start(tmp_path, Group(Ranks(1, 2)))
    note_start(tmp_path, ONE)
    assert not list(tmp_path.iterdir())


def test_a_comparison_is_for_one_process(command, tmp_path, monkeypatch):
    for name, value in {
        "RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    code, _, err = command("compare", "--methods", "local", "--out", tmp_path / "table")
    assert code == 2
    assert "runs in one process" in err
    assert not (tmp_path / "table").exists()
