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

AGAIN = (
    NOISE
    + """
kept = []
def served_again(turned):
    def draw(source, count):
        # Whatever is drawn at once, on whichever thread: a world of 2,000 values serves some twice.
        if not kept:
            kept.append(right(source, 1024))
        blocks = [turned(kept[0], turn) for turn in range(count // 1024 + 1)]
        return np.concatenate(blocks)[:count].copy()
    RoundedGaussian.sample = draw
"""
)

REUSED = AGAIN + "served_again(lambda noise, turn: noise)\n"
REVERSED = AGAIN + "served_again(lambda noise, turn: noise[::-1] if turn % 2 else noise)\n"
SHIFTED = AGAIN + "served_again(lambda noise, turn: np.roll(noise, turn))\n"

SEEDED = (
    NOISE
    + """
from privacy.noise_reservoir import NoiseReservoir
# Drawn when it is asked for: ahead, threads decide which part of the stream a small audit sees.
NoiseReservoir.sample = lambda reservoir, count: reservoir._source.sample(count)
seeded = np.random.default_rng(7)
def draw(source, count):
    return np.rint(seeded.normal(0.0, 2.0**20, count)).astype(np.int64)
RoundedGaussian.sample = draw
"""
)

ALONE = """
from dataclasses import replace
from teacher_server import answering
right = answering._Selection.of
def of(version, taps):
    made = right(version, taps)
    # A tap alone is kept under a key of its own, and so drawn anew when all are asked.
    own = tuple(part + b"alone" for part in made.settings)
    return replace(made, settings=own) if len(taps) == 1 else made
answering._Selection.of = of
"""


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
