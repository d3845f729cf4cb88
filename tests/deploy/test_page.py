"""docs/clusters.md: every command in it is one, and what it names is there."""

import importlib.util
import re
from pathlib import Path

import pytest
from cyclopts.exceptions import CycloptsError

from tests.deploy.command_lines import FILES, command_of, parsed, typed

ROOT = FILES.parents[1]
CLUSTERS = ROOT / "docs" / "clusters.md"
PAGE = CLUSTERS.read_text(encoding="utf-8")
OURS = ("student-client", "teacher-server")
spec = importlib.util.spec_from_file_location("launch", FILES / "ray" / "launch.py")
launch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launch)
OUR_LINES = [words for words in typed(CLUSTERS) if any(word in OURS for word in words)]


@pytest.mark.parametrize("words", OUR_LINES, ids=" ".join)
def test_a_command_has_the_options_that_the_page_gives_it(words, tmp_path):
    if words[0] == "python":
        assert (ROOT / words[1]).exists()
        _, command = launch.parsed(words[2:])
    else:
        _, command = command_of(words)
    config = tmp_path / "config.toml"
    config.write_text('[compare]\nmethods = "at"\nout = "comparisons/first-0"\n')
    assert parsed(command, config)


def test_an_option_that_is_not_there_would_be_noticed():
    assert len(OUR_LINES) > 5
    with pytest.raises(CycloptsError):
        parsed(["student-client", "train", "none", "--out", "runs/first", "--nodes", "2"])
    with pytest.raises(SystemExit):
        command_of(["torchrun", "--node-count", "2", "student-client"])


def test_options_in_the_text_exist():
    of_ours = parsed(["student-client", "train", "none", "--out", "o", "--shard", "--yes"])
    assert of_ours["trainer"].shard


def test_every_file_is_named_and_every_name_is_a_file():
    named = {Path(name) for name in re.findall(r"deploy/training/[\w/.-]+\.\w+", PAGE)}
    folders = re.findall(r"\| file in `(deploy/training/\w+)` \|.*?\n\n", PAGE + "\n\n", re.S)
    for folder in folders:
        table = PAGE[PAGE.index(f"| file in `{folder}`") :].split("\n\n")[0]
        named |= {Path(folder) / name for name in re.findall(r"^\| `([\w.-]+)`", table, re.M)}
    files = {path.relative_to(ROOT) for path in FILES.rglob("*") if path.is_file()}
    assert named == {path for path in files if "__pycache__" not in path.parts}
