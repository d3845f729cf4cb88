"""The system is broken on purpose, one way at a time: the suite's own tests must notice each."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.planted_faults.register import FAULTS, NOTHING

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(name: str, caught: dict[str, str], tmp_path: Path) -> None:
    done = suite_with(name, FAULTS[name].tests, tmp_path)
    # 1: tests ran and failed. A fault that breaks the collection (2), say, proves nothing.
    assert done.returncode == 1, f"not caught\n{done.stdout}\n{done.stderr}"
    failures = re.findall(r"^FAILED ([^\s[]+)", done.stdout, re.MULTILINE)
    assert set(failures) == set(FAULTS[name].tests), done.stdout
    # Noticed by the test itself, and not by an error on the way that the fault happens to cause.
    noticed = re.findall(FAULTS[name].notice, done.stdout, re.MULTILINE)
    assert len(noticed) == len(failures), done.stdout
    caught[name] = " ".join(sorted(set(failures)))


def test_nothing_is_caught_where_nothing_is_planted(tmp_path: Path) -> None:
    """The control: what catches a fault passes in the same environment without it."""
    tests = sorted({test for fault in FAULTS.values() for test in fault.tests})
    done = suite_with(NOTHING, tests, tmp_path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def suite_with(
    planted: str, tests: Iterable[str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """These tests of the suite in a process of its own, on a system with this fault."""
    options = (
        *("-p", "tests.planted_faults.plugin", "--plant", planted),
        # The same examples in every run: what is caught today is caught tomorrow.
        *("--hypothesis-seed", "0", "-p", "no:cacheprovider"),
        *("--quiet", "--no-header", "--tb=line"),
    )
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HYPOTHESIS_STORAGE_DIRECTORY": str(folder)},
        check=False,
    )
