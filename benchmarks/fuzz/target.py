"""The service that is fuzzed: a process of its own, with mTLS and a durable ledger.

`teacher-server rehearse` takes bytes; for a service of float32 rows the same is started by
`rehearse_rows`, which differs in the type of the samples alone.
"""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

RADIUS: Final = 2**21
"""Noise of an eighth of the bound at most: a wrong answer is seen."""
FILES: Final = 1024
"""That the service may open: what systems give to whoever does not ask for more."""
ROOT: Final = Path(__file__).parents[2]
_CERTIFICATES: Final = ("--server-name", "localhost", "--client", "anna", "--client", "petra",
                        "--auditor", "otto")  # fmt: skip
_OPTIONS: Final = ("--unlimited", "--radius", str(RADIUS), "--listen", "localhost:0",
                   "--reflection", "--json")  # fmt: skip
_CHANNEL: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True)
class Use:
    """What a process holds."""

    resident: int
    """Bytes."""
    files: int
    """But the ledger's tables: SQLite keeps as many open as were ever read at once, for reuse."""
    threads: int


@dataclass(frozen=True)
class Target:
    """A running service. anna is hostile, petra pays for her questions, otto audits."""

    process: subprocess.Popen[str]
    address: str
    certificates: Path
    log: Path

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    @property
    def port(self) -> int:
        """Where it listens, on localhost."""
        return int(self.address.rpartition(":")[2])

    def channel(self, name: str) -> grpc.aio.Channel:
        """A channel of its own connection, with the certificate of `name`."""
        folder = self.certificates / name
        parts = ("ca.pem", "key.pem", "certificate.pem")
        credentials = grpc.ssl_channel_credentials(
            *((folder / part).read_bytes() for part in parts)
        )
        return grpc.aio.secure_channel(self.address, credentials, options=list(_CHANNEL))

    def tls(self, name: str) -> ssl.SSLContext:
        """For sockets below gRPC, with the certificate of `name`."""
        folder = self.certificates / name
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
        context.set_alpn_protocols(["h2"])
        return context

    def use(self) -> Use:
        """What the process holds now."""
        place = Path(f"/proc/{self.process.pid}")
        status = (place / "status").read_text()
        found = dict(re.findall(r"(VmRSS|Threads):\s+(\d+)", status))
        files = 0
        for link in (place / "fd").iterdir():
            # One may be closed meanwhile.
            with suppress(FileNotFoundError):
                files += "ledger.sqlite" not in os.readlink(link)
        return Use(int(found["VmRSS"]) * 1024, files, int(found["Threads"]))

    def seconds(self) -> float:
        """Of processor, used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


@contextmanager
def running(folder: Path, *, rows: bool = False) -> Iterator[Target]:
    """A service with its files in `folder`; rows: of float32, not of bytes."""
    folder.mkdir(parents=True)
    server = str(Path(sys.executable).with_name("teacher-server"))
    certificates = folder / "certificates"
    subprocess.run(
        [server, "certs", "--out", str(certificates), *_CERTIFICATES],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    command = (
        [sys.executable, "-m", "benchmarks.fuzz.rehearse_rows"] if rows else [server, "rehearse"]
    )
    command = ["sh", "-c", f'ulimit -n {FILES}; exec "$@"', "sh", *command]
    command += ["--ledger", str(folder / "ledger"), "--certs", str(certificates / "server")]
    if not rows:
        command += _OPTIONS
    log = folder / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the service did not start: {log.read_text()}")
        yield Target(process, json.loads(line)["listening"], certificates, log)
    finally:
        process.kill()
        process.communicate()
