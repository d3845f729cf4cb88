"""Memory that was freed is used again, without asking the system for it."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from ktan.heap import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(9)
def work():
    # As large and as many at a time as the maps of a network.
    return [bytearray(b"x") * 12_000_000 for _ in range(4)]
for _ in range(5):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True)
    if done.returncode == 9:
        pytest.skip("this C library has no mallopt")
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_not_asked_for_anew() -> None:
    assert page_faults("keep") < page_faults("plain") / 10
