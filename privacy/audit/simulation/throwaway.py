"""Public-only teachers, trained by the real command under a ledger that nobody keeps.

The two commands run as processes, in a temporary folder that holds copies of the public samples,
the ledger and the teachers. The public data set's own folder gets no ledger.
"""

import os
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ktan.interruption import Interruption
from privacy.audit.simulation.stand_in import StandIn
from privacy.errors import InvalidPlan, PrivacyError

TRAINING_OPTIONS = (
    "alignment-samples", "augment", "batch", "bound-quantile", "device", "epochs", "learning-rate",
    "network", "network-set", "optimiser", "precision", "reference-steps", "seed", "stack",
    "start", "weight-decay",
)  # fmt: skip
"""Of `teacher-server train`, those that a simulation does not set itself."""

_LOOK = 0.1
"""Seconds between looks at whether ctrl-C was pressed."""

_PATIENCE = 10.0
"""Seconds that a process has to end by itself."""


def train_public(
    folder: Path, public: StandIn, mode: str, taps: Sequence[str], options: Iterable[str]
) -> Path:
    """Trains `public.trained` teachers in `folder` (must be new) and returns the teacher's folder.

    taps: as `teacher-server train` reads them. options: NAME=VALUE, see TRAINING_OPTIONS.
    Raises InvalidPlan for an unknown option, PrivacyError with the command's message when it
    fails.
    """
    training = _training(options)
    folder.mkdir(mode=0o700)
    arrays = folder / "public.npz"
    parts = public.parts
    chosen = np.sort(np.concatenate([parts.private, parts.labelled, parts.unlabelled, parts.test]))
    dataset = public.dataset
    # The same ids under the same seed: the commands find the very same parts in the copy.
    np.savez(
        arrays,
        samples=dataset.samples[chosen].numpy(),
        labels=dataset.labels[chosen].numpy(),
        unit_ids=dataset.unit_ids[chosen],
        classes=np.array(dataset.classes),
    )
    recipe = parts.recipe
    data = ["--dataset", f"arrays:{arrays}", "--ledger", str(folder / "ledger")]
    for name in ("labelled", "unlabelled", "test"):
        data += [f"--{name}", str(getattr(recipe, name))]
    data += ["--split-seed", str(recipe.seed)]
    teacher = folder / "teacher"
    count = [] if mode == "single" else ["--teachers", str(public.trained)]
    named = [word for tap in taps for word in ("--taps", tap)]
    # Training asks nothing of this budget; a ledger cannot be opened without one.
    _run("open-ledger", [*data, "--unit", "unit", "--epsilon", "1", "--json"], folder)
    _run(
        "train",
        [*data, "--out", str(teacher), "--mode", mode, *count, *named, *training, "--json"],
        folder,
    )
    return teacher


def _training(options: Iterable[str]) -> list[str]:
    words: list[str] = []
    for text in options:
        name, separator, value = text.partition("=")
        if not separator or name not in TRAINING_OPTIONS:
            raise InvalidPlan(
                f"--training {text}: write NAME=VALUE, NAME one of {', '.join(TRAINING_OPTIONS)}"
            )
        words += [f"--{name}", value]
    return words


def _run(command: str, arguments: Sequence[str], folder: Path) -> None:
    """One `teacher-server` command; what it says on stderr is passed on as it comes."""
    # The whole life of the process: a ctrl-C that came while it starts would orphan it.
    with Interruption() as interruption:
        process = subprocess.Popen(
            [_program(), command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=folder,
            # Libraries keep caches in the temporary folder; these go with it.
            env=os.environ | {"TMPDIR": str(folder)},
            # ctrl-C is for this process, which then ends the other: there is nothing to resume.
            start_new_session=True,
        )
        assert process.stderr is not None
        last: deque[str] = deque(maxlen=1)
        reader = threading.Thread(target=_pass_on, args=(process.stderr, last), daemon=True)
        reader.start()
        try:
            code = _end_of(process, lambda: interruption.asked)
        finally:
            _stop(process)
            reader.join(_PATIENCE)
    if code:
        said = last[0].removeprefix("error: ") if last else f"it ended with {code}"
        raise PrivacyError(f"teacher-server {command}, on the public data: {said}")


def _end_of(process: subprocess.Popen[str], stopping: Callable[[], bool]) -> int:
    """The exit code. Raises KeyboardInterrupt when the user has had enough."""
    while True:
        try:
            return process.wait(_LOOK)
        except subprocess.TimeoutExpired:
            if stopping():
                raise KeyboardInterrupt from None


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _pass_on(stream: IO[str], last: deque[str]) -> None:
    """To this process's stderr, but for an error, which is kept in `last` to be said once."""
    in_bar = False
    # Universal newlines: each state of a progress bar is a line.
    for line in stream:
        text = line.rstrip("\n")
        if not text.strip():
            continue
        last.append(text)
        if text.startswith("error: "):
            continue
        is_bar = "%|" in text
        start = "\r" if is_bar else "\n" if in_bar else ""
        print(f"{start}{text}", end="" if is_bar else "\n", file=sys.stderr, flush=True)
        in_bar = is_bar
    if in_bar:
        print(file=sys.stderr, flush=True)


def _program() -> str:
    """`teacher-server` of this installation, or the one on the path."""
    beside = Path(sys.executable).with_name("teacher-server")
    found = str(beside) if beside.exists() else shutil.which("teacher-server")
    if found is None:
        raise PrivacyError("--simulate runs teacher-server, which is not installed here")
    return found
