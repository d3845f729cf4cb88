"""`teacher-server serve`: answers public samples until it is told to stop."""

from __future__ import annotations

from pathlib import Path

from privacy.noise import DEFAULT_NOISE, NoiseName
from teacher_server.commands.options import Flag, Serving
from teacher_server.commands.screen import print_facts
from teacher_server.observing.json_logs import set_up_logs
from teacher_server.options import ServeOptions
from teacher_server.serving import run_service

_SERVE = ServeOptions()


def serve(
    teacher: Path,
    *,
    ledger: Path,
    options: Serving = _SERVE,
    witness: Path | None = None,
    trusted_head: Path | None = None,
    device: str = "auto",
    noise: NoiseName = DEFAULT_NOISE,
    json: Flag = False,
) -> None:
    """Answer public samples over gRPC until told to stop; SIGTERM drains.

    Parameters
    ----------
    teacher
        The teacher's folder.
    ledger
        The ledger of the data set that the teacher was trained on.
    witness
        The ledger's witness file, if it has moved.
    trusted_head
        Where the witness is lost: the newest receipt of a client, or an auditor's head, as JSON.
    device
        cpu, cuda, or auto for a GPU where there is one.
    noise
        The noise's sampler; the ledger must have been opened for it, or for a coarser one.
    json
        Print one JSON object once the service listens.
    """
    set_up_logs(options.log_format)
    run_service(
        teacher,
        ledger,
        witness,
        trusted_head,
        options,
        device,
        noise,
        lambda facts: print_facts(facts, json),
    )
