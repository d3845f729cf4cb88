"""The system is broken on purpose, one way at a time: the suite's own tests must notice each."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.planted_faults.register import FAULTS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(name: str, caught: dict[str, str]) -> None:
    command = [
        *(sys.executable, "-m", "pytest", "-p", "tests.planted_faults.plugin", "--plant", name),
        *("--quiet", "--no-header", "--tb=line", "-p", "no:cacheprovider", *FAULTS[name].tests),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HYPOTHESIS_DATABASE_FILE": ""},
    )
    # 1: tests ran and failed. A fault that breaks the collection (2), say, proves nothing.
    assert done.returncode == 1, f"not caught\n{done.stdout}\n{done.stderr}"
    failed = re.findall(r"^FAILED (\S+)", done.stdout, re.M)
    assert failed, done.stdout
    # Noticed by the test itself, and not by an error on the way that the fault happens to cause.
    assert re.search(FAULTS[name].notice, done.stdout, re.M), done.stdout
    caught[name] = " ".join(sorted({test.partition("[")[0] for test in failed}))
