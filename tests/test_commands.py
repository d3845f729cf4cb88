"""The three commands load what they use, and say in a list what they say on their own pages."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `commands_child` has run, and seen."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.commands_child", tmp_path_factory.mktemp("commands")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_a_list_of_commands_is_shown_with_none_of_them_loaded(found: dict[str, Any]) -> None:
    lists = {what: loaded for what, loaded in found["ran"].items() if what.endswith(" --help")}
    assert list(lists.values()) == [[], [], []], lists


def test_what_is_done_to_a_ledger_certificates_and_logs_needs_no_torch(
    found: dict[str, Any],
) -> None:
    assert {what: loaded for what, loaded in found["ran"].items() if "torch" in loaded} == {}
    assert "privacy-audit plan --epsilon 4" in found["ran"]


def test_no_command_loads_what_only_some_of_its_options_need(found: dict[str, Any]) -> None:
    assert "torch" in found["all"]
    assert not {"torchvision", "opacus", "matplotlib", "opendp"} & set(found["all"])


def test_the_list_says_what_each_command_s_own_page_says_first(found: dict[str, Any]) -> None:
    assert len(found["pages"]) > 20
    for command, (line, page) in found["pages"].items():
        assert " ".join(page.split()).startswith(line), command
        assert line.endswith("."), command
