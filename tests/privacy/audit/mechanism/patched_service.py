"""The rehearsal with a fault planted in it: what an audit has to catch."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[4]

NOISE = """
import numpy as np
from privacy.noise import RoundedGaussian
right = RoundedGaussian.sample
"""
"""What a patch of the noise begins with: `right(source, count)` is the true sampler."""

SCALED = (
    NOISE
    + """
RoundedGaussian.sample = lambda source, count: np.rint(0.95 * right(source, count)).astype(np.int64)
"""
)

REUSED = (
    NOISE
    + """
kept = {}
RoundedGaussian.sample = lambda source, count: kept.setdefault(count, right(source, count)).copy()
"""
)

SEEDED = (
    NOISE
    + """
seeded = np.random.default_rng(7)
def draw(source, count):
    return np.rint(seeded.normal(0.0, 2.0**20, count)).astype(np.int64)
RoundedGaussian.sample = draw
"""
)


def command(patch: str) -> str:
    """A --server-command that runs `patch`, then the rehearsal, in one process."""
    code = f"{patch}\nfrom teacher_server.rehearsal.command import main\nmain()\n"
    return shlex.join([sys.executable, "-c", code])


def audited(*options: str, patch: str | None = None) -> tuple[int, dict[str, Any], str]:
    """`privacy-audit mechanism` as a process: exit code, its JSON, its stderr."""
    words = [sys.executable, "-m", "privacy.audit.cli", "mechanism", "--json", *options]
    words += [] if patch is None else ["--server-command", command(patch)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=3000)
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    return done.returncode, found, done.stderr
