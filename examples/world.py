"""One run of the three commands as real processes, each in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.settings import Setting

BIN = Path(sys.executable).parent


@dataclass
class World:
    """One run of the demo: its own data folder, ledger, teacher, service and students."""

    folder: Path
    setting: Setting
    seed: int

    def run(self) -> dict[str, Any]:
        """Every step in order; returns the figures of the table."""
        started = time.monotonic()
        data = ["--data-root", str(self.folder / "data"), *self.setting.data]
        ledger, teacher, certs = (str(self.folder / n) for n in ("ledger", "teacher", "certs"))

        self.step("certificates: a private authority, a server, a student, an auditor")
        command("teacher-server", "certs", "--out", certs, "--server-name", "localhost",
                "--client", "student", "--auditor", "auditor")  # fmt: skip
        self.step("ledger: opened once for this data set, with its whole budget")
        command("teacher-server", "open-ledger", *data, "--ledger", ledger, *self.setting.plan)
        self.step(f"teacher: trained on private records ({self.setting.mode})")
        command("teacher-server", "train", *data, "--ledger", ledger, "--out", teacher, "--mode",
                self.setting.mode, "--seed", str(self.seed), *self.setting.teacher)  # fmt: skip
        taught = command("teacher-server", "evaluate", teacher, *data)

        runs: dict[str, dict[str, Any]] = {}
        student = [*data, "--seed", str(self.seed), *self.setting.student]
        if self.setting.alone:
            self.step("student: local loss only (no teacher)")
            runs["local"] = self.student("none", "local", student)
        self.step("service: the teacher answers over mTLS, in a process of its own")
        with service(teacher, ledger, certs, self.setting.serve) as address:
            self.step("student: taught by the private service")
            paid = ["--certs", f"{certs}/student", "--answers", str(self.folder / "answers")]
            runs["private"] = self.student(address, "private", [*student, *paid])
            for name, options in self.setting.also.items():
                self.step(f"student: taught by the same service ({name})")
                runs[name] = self.student(address, name, [*student, *paid, *options])
        self.step("student: taught without noise (unprotected, for comparison)")
        runs["unprotected"] = self.student(f"file:{teacher}", "unprotected", student)
        self.step("audit: the chain, the signatures, every receipt of the student")
        audit = command("privacy-audit", "ledger", ledger,
                        "--receipts", str(self.folder / "answers"))  # fmt: skip
        return {
            "seed": self.seed,
            "mode": self.setting.mode,
            "seconds": round(time.monotonic() - started, 1),
            "teacher": taught,
            "students": runs,
            "audit": audit,
        }

    def student(self, teacher: str, name: str, options: list[str]) -> dict[str, Any]:
        out = self.folder / "students" / name
        result = command("student-client", "train", teacher, "--out", str(out), "--yes", *options)
        history = json.loads((out / "history.json").read_text(encoding="utf-8"))
        return {**result, "history": history}

    def step(self, text: str) -> None:
        print(f"\n[seed {self.seed}] {text}", file=sys.stderr, flush=True)


def command(name: str, *arguments: str) -> dict[str, Any]:
    """Runs one of the three commands with --json; its progress stays on the screen."""
    line = [str(BIN / name), *arguments, "--json"]
    print("  $ " + " ".join([name, *arguments]), file=sys.stderr, flush=True)
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{name} {arguments[0]} failed with exit code {done.returncode}\n{done.stdout}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@contextlib.contextmanager
def service(teacher: str, ledger: str, certs: str, options: list[str]) -> Iterator[str]:
    """`teacher-server serve` on a free port; yields its address, then drains it with SIGTERM."""
    line = [str(BIN / "teacher-server"), "serve", teacher, "--ledger", ledger, "--certs",
            f"{certs}/server", "--listen", "localhost:0", *options, "--json"]  # fmt: skip
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            ready = process.stdout.readline()
            if not ready:
                sys.exit(f"teacher-server serve failed with exit code {process.wait()}")
            yield json.loads(ready)["listening"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
