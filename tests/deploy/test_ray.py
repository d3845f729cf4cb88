"""The Ray script, as far as it goes without Ray: who is which rank, and what is run."""

import importlib.util

import pytest

from ktan.ranks import Ranks
from tests.deploy.command_lines import FILES, parsed

spec = importlib.util.spec_from_file_location("launch", FILES / "ray" / "launch.py")
launch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launch)


def ranks(nodes):
    settings = launch.environments(nodes, "10.0.0.1", 41000, 0, 3)
    return [Ranks.chosen(None, None, environment) for environment in settings]


def test_processes_of_one_node_get_ranks_that_follow_one_another():
    # As a placement group may deal them.
    assert ranks(["a", "b", "a", "b", "b"]) == [
        Ranks(0, 5, 0, 2), Ranks(2, 5, 0, 3), Ranks(1, 5, 1, 2), Ranks(3, 5, 1, 3),
        Ranks(4, 5, 2, 3),
    ]  # fmt: skip


def test_a_single_process_is_all_there_is():
    assert ranks(["a"]) == [Ranks(0, 1, 0, 1)]


def test_all_meet_at_the_first_process_and_know_which_attempt_this_is():
    settings = launch.environments(["a", "b"], "10.0.0.1", 41000, 2, 3)
    common = {
        "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "41000", "WORLD_SIZE": "2",
        "GROUP_WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "2",
        "TORCHELASTIC_MAX_RESTARTS": "3",
    }  # fmt: skip
    assert settings[0]["RANK"] == "0"
    for environment in settings:
        assert common.items() <= environment.items()
        assert all(isinstance(value, str) for value in environment.values())


def test_the_command_stands_behind_two_dashes_and_keeps_its_own_options():
    options, command = launch.parsed(
        ["--processes", "4", "--gpus", "1", "--", "student-client", "train", "none", "--out", "o",
         "--method-set", "--"]
    )  # fmt: skip
    assert (options.processes, options.gpus, options.max_restarts) == (4, 1, 3)
    assert command[-1] == "--"
    assert parsed(command[:-2])["teacher"] == "none"


@pytest.mark.parametrize(
    "words", [["--processes", "4"], ["--processes", "4", "--"], ["--processes", "0", "--", "true"]]
)
def test_without_a_command_or_a_process_nothing_is_begun(words, capsys):
    with pytest.raises(SystemExit):
        launch.parsed(words)
    assert "error" in capsys.readouterr().err
