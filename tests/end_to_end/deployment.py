"""The three commands as real processes on one machine, small enough for a test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
QUERIES = 120
SPLIT = ["--private", "600", "--labelled", "60", "--unlabelled", "200", "--test", "100"]
_LARGER = ["--labelled", "100", "--unlabelled", "1000", "--test", "1000"]
SHARES = ["--answers", str(QUERIES), "--share", "probabilities=0.9", "--share", "hint=0.1"]


@dataclass(frozen=True)
class Deployment:
    """Folders of one custodian, one trainer, one auditor."""

    folder: Path
    dataset: str = "fake"
    size: int = 1000

    @property
    def data(self) -> list[str]:
        split = SPLIT if self.dataset == "fake" else _LARGER
        source = ["--dataset", self.dataset, "--size", str(self.size)]
        return [*source, "--data-root", str(self.folder / "data"), *split]

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    @property
    def teacher(self) -> Path:
        return self.folder / "teacher"

    @property
    def student(self) -> Path:
        return self.folder / "student"

    def run(
        self, command: str, *arguments: object, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """One command to its end; its output is shown when it fails unexpectedly."""
        done = subprocess.run(
            line(command, *arguments), capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0 or not check, f"{done.args}\n{done.stdout}\n{done.stderr}"
        return done

    def run_json(self, command: str, *arguments: object) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.run(command, *arguments, "--json").stdout)
        return result

    def prepare(self, *plan: str, teacher: tuple[str, ...] = ("--teachers", "6")) -> None:
        """Certificates, a ledger, a teacher."""
        self.run("teacher-server", "certs", "--out", self.folder / "certs",
                 "--server-name", "localhost", "--client", "anna", "--auditor", "otto")  # fmt: skip
        self.run("teacher-server", "open-ledger", *self.data, "--ledger", self.ledger,
                 "--delta", "1e-5", *(plan or ("--epsilon", "8")))  # fmt: skip
        self.run("teacher-server", "train", *self.data, "--ledger", self.ledger, "--out",
                 self.teacher, "--taps", "probabilities", "--taps", "hint=features:4",
                 "--epochs", "2", *teacher)  # fmt: skip

    def train_student(self, address: str, *options: object) -> list[str]:
        """The command line of the student's training."""
        return line(
            "student-client", "train", address, *self.data, "--certs", self.folder / "certs/anna",
            "--queries", QUERIES, "--steps", "20", "--yes", "--out", self.student, "--json",
            *options,
        )  # fmt: skip

    @contextlib.contextmanager
    def service(self, port: int = 0, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """A server process and its address; killed at the end if it still runs."""
        command = line(
            "teacher-server", "serve", self.teacher, "--ledger", self.ledger, "--certs",
            self.folder / "certs/server", "--listen", f"localhost:{port}", "--json",
            *(options or SHARES),
        )  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield process, json.loads(process.stdout.readline())["listening"]
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()


def line(command: str, *arguments: object) -> list[str]:
    return [str(BIN / command), *(str(argument) for argument in arguments)]


def stop(process: subprocess.Popen[str]) -> int:
    """SIGTERM; the exit code."""
    os.kill(process.pid, signal.SIGTERM)
    return process.wait(timeout=60)
