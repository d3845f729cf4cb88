"""The system is broken on purpose, one way at a time: the suite's own tests must notice each."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.planted_faults.register import FAULTS, NOTHING

ROOT = Path(__file__).resolve().parents[2]


class Done(NamedTuple):
    """How a suite ended."""

    returncode: int
    output: str


SuiteWith = Callable[[str, Iterable[str]], Done]


@pytest.fixture(scope="module")
def warm() -> Iterator[subprocess.Popen[str]]:
    """The process that forks for each suite; see `tests.planted_faults.warm`."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.planted_faults.warm"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    ) as process:
        yield process
        # With what a suite that takes too long may have left.
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def suite_with(warm: subprocess.Popen[str], tmp_path: Path) -> SuiteWith:
    """Runs tests of the suite in a process of their own, on a system with a fault."""

    def run(planted: str, tests: Iterable[str]) -> Done:
        options = (
            *("-p", "tests.planted_faults.plugin", "--plant", planted),
            # The same examples in every run: what is caught today is caught tomorrow.
            *("--hypothesis-seed", "0", "-p", "no:cacheprovider"),
            *("--quiet", "--no-header", "--tb=line", "--timeout", "240"),
        )
        suite = {
            "arguments": [*options, *tests],
            "output": str(tmp_path / "output"),
            "examples": str(tmp_path / "examples"),
        }
        assert warm.stdin is not None
        assert warm.stdout is not None
        warm.stdin.write(json.dumps(suite) + "\n")
        warm.stdin.flush()
        code = int(warm.stdout.readline())
        return Done(code, (tmp_path / "output").read_text(encoding="utf-8"))

    return run


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(
    name: str, caught: dict[str, str], suite_with: SuiteWith
) -> None:
    done = suite_with(name, FAULTS[name].tests)
    # 1: tests ran and failed. A fault that breaks the collection (2), say, proves nothing.
    assert done.returncode == 1, f"not caught\n{done.output}"
    failures = re.findall(r"^FAILED ([^\s[]+)", done.output, re.MULTILINE)
    assert set(failures) == set(FAULTS[name].tests), done.output
    # Noticed by the test itself, and not by an error on the way that the fault happens to cause.
    noticed = re.findall(FAULTS[name].notice, done.output, re.MULTILINE)
    assert len(noticed) == len(failures), done.output
    caught[name] = " ".join(sorted(set(failures)))


def test_nothing_is_caught_where_nothing_is_planted(suite_with: SuiteWith) -> None:
    """The control: what catches a fault passes in the same environment without it."""
    tests = sorted({test for fault in FAULTS.values() for test in fault.tests})
    done = suite_with(NOTHING, tests)
    assert done.returncode == 0, done.output
