"""From a teacher folder, a ledger and options to a running service, or a clear refusal to run."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ktan.errors import UserError
from ktan.precision import resolve_device
from ktan.teachers import TeacherCard, TeacherModels
from privacy.noise import DiscreteGaussian
from protos.limits import samples_per_request
from teacher_server.answering import Answerer
from teacher_server.menu import ServedTap, build_menu, parse_shares
from teacher_server.opening import reopen_ledger
from teacher_server.server import Transport, serve
from teacher_server.service import Described
from teacher_server.training import verify_folder


@dataclass(frozen=True)
class ServeOptions:
    """What is released, and where the service listens."""

    answers: int = 1000
    """Samples that the ledger's whole answering budget should last for; fewer get less noise
    each. Not used with a dp-sgd teacher, whose answers cost nothing."""
    share: tuple[str, ...] = ()
    """TAP=WEIGHT: part of an answer's charge that a tap gets; taps without one are not served.
    All taps alike when none is given."""
    listen: str = "127.0.0.1:50051"
    """HOST:PORT; port 0 takes a free one."""
    certs: Path | None = None
    """Folder with ca.pem, certificate.pem and key.pem of the server."""
    plaintext: bool = False
    """No TLS and no roles; on a loopback address only."""
    reflection: bool = False
    """Let tools such as grpcurl list the methods."""
    max_samples: int = 256
    """Samples in one request, at most."""
    max_waiting_samples: int = 4096
    """Samples waiting for the teacher before clients are asked to retry later."""
    threads: int = 0
    """Requests that the teacher works on at once; 0 takes the number of cores, 1 with a GPU."""
    grace: float = 30.0
    """Seconds that requests under way get to end when the server is asked to stop."""
    device: str = "auto"
    """cpu, cuda, or auto for a GPU where there is one."""

    def check(self) -> None:
        """Raises UserError for a number that no service can run with."""
        limits = {
            "answers": 1, "max_samples": 1, "max_waiting_samples": 1, "threads": 0, "grace": 0
        }  # fmt: skip
        for name, least in limits.items():
            value = getattr(self, name)
            if value < least:
                option = name.replace("_", "-")
                raise UserError(f"--{option} is {value:g}; it must be at least {least}")


def run_service(
    folder: Path,
    ledger_folder: Path,
    witness: Path | None,
    trusted: Path | None,
    options: ServeOptions,
    on_ready: Callable[[dict[str, Any]], None],
) -> None:
    """Serves the teacher of `folder` until it is told to stop.

    Raises UserError or a PrivacyError, before anything listens, when the teacher's files were
    changed, when it belongs to another ledger, or when an option contradicts the budget.
    """
    options.check()
    card = TeacherCard.read(folder)
    with reopen_ledger(ledger_folder, witness, trusted=trusted) as ledger:
        if card.ledger_id != ledger.ledger_id:
            raise UserError(
                f"the teacher in {folder} was trained under ledger {card.ledger_id}, but "
                f"{ledger_folder} is ledger {ledger.ledger_id}; a data set has one ledger"
            )
        verify_folder(folder, ledger.mac)
        if card.mode == "dp-sgd" and ledger.training_of(card.version) is None:
            raise UserError(f"the training of the teacher in {folder} was never charged")
        noise = DiscreteGaussian()
        if card.mode != "dp-sgd" and not ledger.plan.covers(noise):
            raise UserError("the noise source errs more than the ledger's plan has set aside")
        menu = build_menu(
            card, ledger.plan.answer_units, options.answers, parse_shares(options.share)
        )
        device = resolve_device(options.device)
        teacher = TeacherModels.load(folder, device)
        answerer = Answerer(teacher, card.version, menu, ledger, noise)
        face = _face(card, menu, options.max_samples)
        transport = Transport(
            listen=options.listen,
            certificates=_certificates(options),
            reflection=options.reflection,
            threads=options.threads or (1 if device.type == "cuda" else os.cpu_count() or 1),
            max_waiting_samples=options.max_waiting_samples,
            grace_seconds=options.grace,
        )

        def ready(address: str) -> None:
            state = ledger.budget(None)
            on_ready(
                {
                    "listening": address,
                    "teacher_version": card.version,
                    "mode": card.mode,
                    "ledger": ledger.ledger_id,
                    "promise": state.promise.sentence(),
                    "epsilon_spent": state.epsilon_spent,
                    "rolled_back": ledger.rolled_back,
                    "taps": {
                        tap.name: {
                            "shape": tap.shape,
                            "noise_sd": tap.release.noise_sd,
                            "charge": tap.release.charge,
                        }
                        for tap in menu
                    },
                }
            )

        async def until_told_to_stop() -> None:
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await serve(face, answerer, ledger, transport, ready, stop)

        torch.set_num_threads(1)
        asyncio.run(until_told_to_stop())


def _certificates(options: ServeOptions) -> Path | None:
    if options.plaintext and options.certs is not None:
        raise UserError("give --certs or --plaintext, not both")
    if not options.plaintext and options.certs is None:
        raise UserError(
            "give --certs FOLDER (`teacher-server certs` makes one), or --plaintext to serve "
            "without TLS on a loopback address"
        )
    return options.certs


def _face(card: TeacherCard, menu: tuple[ServedTap, ...], max_samples: int) -> Described:
    # A request and its response must fit the message limits with room for names and receipt.
    sample_bytes = math.prod(card.input_shape) * torch.empty(0, dtype=card.torch_dtype).itemsize
    answer_bytes = 4 * sum(math.prod(tap.shape) for tap in menu)
    largest = min(max_samples, samples_per_request(sample_bytes, answer_bytes))
    if largest < 1:
        raise UserError(
            f"one sample of {sample_bytes} bytes or its answer of {answer_bytes} bytes does not "
            "fit one message; serve fewer or smaller taps"
        )
    return Described(
        teacher_version=card.version,
        mode=card.mode,
        teachers=card.teachers,
        dataset=card.dataset,
        classes=card.classes,
        input_dtype=card.input_dtype,
        input_shape=card.input_shape,
        mean=card.normalisation.mean,
        standard_deviation=card.normalisation.std,
        menu=menu,
        max_samples=largest,
    )
