"""The three commands as real processes on one machine, small enough for a test."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.end_to_end.commands import Running, start

QUERIES = 120
SPLIT = ["--private", "600", "--labelled", "60", "--unlabelled", "200", "--test", "100"]
_LARGER = ["--labelled", "100", "--unlabelled", "1000", "--test", "1000"]
SHARES = ["--answers", str(QUERIES), "--share", "probabilities=0.9", "--share", "hint=0.1"]
_TEACHER = ("--teachers", "6", "--reference-steps", "100")


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


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

    def start(self, command: str, *arguments: object) -> Running:
        """A command in a process of its own."""
        return start(self.folder / "said", command, *arguments)

    def run(self, command: str, *arguments: object, check: bool = True) -> Done:
        """One command to its end; its output is shown when it fails unexpectedly."""
        running = self.start(command, *arguments)
        done = Done(running.end(), running.output, running.errors)
        assert done.returncode == 0 or not check, f"{command} {arguments}\n{done}"
        return done

    def run_json(self, command: str, *arguments: object) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.run(command, *arguments, "--json").stdout)
        return result

    def prepare(self, *plan: str, teacher: tuple[str, ...] = _TEACHER) -> None:
        """Certificates, a ledger, a teacher."""
        self.run("teacher-server", "certs", "--out", self.folder / "certs",
                 "--server-name", "localhost", "--client", "anna", "--auditor", "otto")  # fmt: skip
        self.run("teacher-server", "open-ledger", *self.data, "--ledger", self.ledger,
                 "--delta", "1e-5", *(plan or ("--epsilon", "8")))  # fmt: skip
        self.run("teacher-server", "train", *self.data, "--ledger", self.ledger, "--out",
                 self.teacher, "--taps", "probabilities", "--taps", "hint=features:4",
                 "--epochs", "2", *teacher)  # fmt: skip

    def train_student(self, address: str, *options: object) -> Running:
        """The student's training."""
        return self.start(
            "student-client", "train", address, *self.data, "--certs", self.folder / "certs/anna",
            "--queries", QUERIES, "--steps", "20", "--yes", "--out", self.student, "--json",
            *options,
        )  # fmt: skip

    @contextlib.contextmanager
    def service(self, port: int = 0, *options: str) -> Iterator[tuple[Running, str]]:
        """A server process and its address; killed at the end if it still runs."""
        server = self.start(
            "teacher-server", "serve", self.teacher, "--ledger", self.ledger, "--certs",
            self.folder / "certs/server", "--listen", f"localhost:{port}", "--json",
            *(options or SHARES),
        )  # fmt: skip
        try:
            yield server, json.loads(server.first_line())["listening"]
        finally:
            server.kill()
