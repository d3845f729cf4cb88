"""How a service is run: what is released, where it listens, what it takes at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from ktan.errors import UserError
from teacher_server.batching import Pace
from teacher_server.listening import Transport
from teacher_server.observing.json_logs import LogFormat

_WAITING_BYTES: Final = 256 * 10**6
_MOST_WAITING: Final = 4096


@dataclass(frozen=True)
class ServeOptions:
    """What is released, and where the service listens."""

    answers: int = 1000
    """Samples that the ledger's whole answering budget should last for; fewer get less noise
    each. Not used with a dp-sgd teacher, whose answers cost nothing."""
    share: Annotated[tuple[str, ...], Parameter(show_default=False)] = ()
    """TAP=WEIGHT: part of an answer's charge that a tap gets; taps without one are not served.
    All taps alike when none is given."""
    listen: str = "127.0.0.1:50051"
    """HOST:PORT; port 0 takes a free one."""
    certs: Path | None = None
    """Folder with ca.pem, certificate.pem and key.pem of the server."""
    revoked: Path | None = None
    """List of the revoked, as `teacher-server revoke` writes it; the file `revoked` in the folder
    of --certs when not given, which may be missing."""
    plaintext: bool = False
    """No TLS and no roles; on a loopback address only."""
    reflection: bool = False
    """Let tools such as grpcurl list the methods."""
    max_samples: int = 256
    """Samples in one request, at most."""
    max_waiting_samples: int = 0
    """Samples that wait, are worked on, or whose answers are not read yet, before clients are asked
    to retry later; 0: as many as fit 256 MB with their answers, at most 4096."""
    limits: Path | None = None
    """TOML file with what each client may ask: rate, burst, samples waiting, cap; read again
    whenever it changes."""
    batch: int = 64
    """Samples of several requests that the teacher is given together, at most."""
    batch_wait: float = 8.0
    """Milliseconds that the teacher waits, while others are being answered, for a batch to fill; 0:
    what is there goes at once."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """In which the teacher computes: float32, bf16, fp16, or auto for what is fastest here."""
    compile: bool = False
    """Compile the teacher (torch.compile): minutes before the service listens."""
    threads: int = 0
    """Batches that the teacher works on at once; 0 takes the number of cores, 1 with a GPU."""
    grace: float = 30.0
    """Seconds that requests under way get to end when the server is asked to stop."""
    log_format: Annotated[LogFormat, Parameter(group="Operations")] = "text"
    """What is logged to stderr: text for people, or one JSON object a line."""
    metrics: Annotated[str | None, Parameter(group="Operations")] = None
    """HOST:PORT of a port with /metrics for Prometheus, /livez and /readyz; none when not given."""
    metrics_open: Annotated[bool, Parameter(group="Operations")] = False
    """Let --metrics be no loopback address: whoever reaches the port reads what was spent."""
    metrics_clients: Annotated[int, Parameter(group="Operations")] = 0
    """Clients whose names become labels of what was charged, at most; the rest share one."""
    request_log: Annotated[Path | None, Parameter(group="Operations")] = None
    """File that gets a JSON line for each call; SIGHUP opens it anew, after it was moved away."""
    traces: Annotated[str | None, Parameter(group="Operations")] = None
    """Collector of OpenTelemetry traces: http://127.0.0.1:4317, or https://HOST:PORT."""
    trace_every: Annotated[int, Parameter(group="Operations")] = 20
    """Of so many calls one is traced; those that end in a fault of the service always are."""

    def check(self) -> None:
        """Raises UserError for a number that no service can run with."""
        limits = {
            "answers": 1, "max_samples": 1, "max_waiting_samples": 0, "batch": 1,
            "batch_wait": 0, "threads": 0, "grace": 0, "metrics_clients": 0, "trace_every": 1,
        }  # fmt: skip
        for name, least in limits.items():
            value = getattr(self, name)
            if value < least:
                option = name.replace("_", "-")
                raise UserError(f"--{option} is {value:g}; it must be at least {least}")

    @property
    def certificates(self) -> Path | None:
        """The folder of the server's certificate; None for plaintext. Raises UserError."""
        if self.plaintext and self.certs is not None:
            raise UserError("give --certs or --plaintext, not both")
        if self.plaintext and self.revoked is not None:
            raise UserError("give --revoked with --certs: under --plaintext nobody has a name")
        if not self.plaintext and self.certs is None:
            raise UserError(
                "give --certs FOLDER (`teacher-server certs` makes one), or --plaintext to serve "
                "without TLS on a loopback address"
            )
        return self.certs

    def pace(self, workers: int) -> Pace:
        """How requests are gathered; `workers` where the options leave it to the hardware."""
        return Pace(self.threads or workers, self.batch, self.batch_wait / 1000)

    def room(self, bytes_each: int) -> int:
        """Samples in the service at once, where one and its answer take so many bytes."""
        fitting = max(1, min(_MOST_WAITING, _WAITING_BYTES // bytes_each))
        return self.max_waiting_samples or fitting

    def transport(self, bytes_each: int) -> Transport:
        """Where the server listens, for samples that take so many bytes with their answers."""
        return Transport(
            listen=self.listen,
            certificates=self.certificates,
            reflection=self.reflection,
            max_waiting_samples=self.room(bytes_each),
            grace_seconds=self.grace,
            revoked=self.revoked,
        )
