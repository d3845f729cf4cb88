"""From a teacher folder, a ledger and options to a running service, or a clear refusal to run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ktan.errors import UserError
from ktan.precision import resolve_device
from ktan.teachers import TeacherCard
from privacy.ledger import Ledger
from privacy.noise import DEFAULT_NOISE, NoiseName, source
from teacher_server.menu import build_menu, parse_shares
from teacher_server.offers import method_offers
from teacher_server.opening import reopen_ledger
from teacher_server.options import ServeOptions
from teacher_server.posture import require_safe
from teacher_server.public_teacher import PublicTeacher
from teacher_server.room import require_room
from teacher_server.running import run
from teacher_server.trained_teacher import TrainedTeacher
from teacher_server.training import verify_charged, verify_folder


def run_service(
    folder: Path,
    ledger_folder: Path,
    witness: Path | None,
    trusted: Path | None,
    options: ServeOptions,
    device_name: str,
    noise_name: NoiseName,
    on_ready: Callable[[dict[str, Any]], None],
) -> None:
    """Serves the teacher of `folder` until it is told to stop; `device_name`: cpu, cuda or auto.

    Raises UserError or a PrivacyError, before anything listens, when the teacher's files were
    changed, when it belongs to another ledger, when others on this host may read either, or when
    an option contradicts the budget.
    """
    options.check()
    require_safe(folder, ledger_folder)
    card = TeacherCard.read(folder)
    with reopen_ledger(ledger_folder, witness, trusted=trusted) as ledger:
        if card.ledger_id != ledger.ledger_id:
            raise UserError(
                f"the teacher in {folder} was trained under ledger {card.ledger_id}, but "
                f"{ledger_folder} is ledger {ledger.ledger_id}; a data set has one ledger"
            )
        _warn(ledger)
        verify_folder(folder, ledger.mac)
        if card.mode == "dp-sgd":
            verify_charged(folder, card.version, ledger)
        noise = source(noise_name)
        if card.mode != "dp-sgd" and not ledger.plan.covers(noise):
            raise UserError(
                f"--noise {noise_name} errs more per draw than this ledger was opened for "
                f"(η = {noise.closeness.eta:g} of {ledger.plan.closeness.eta:g}, "
                f"τ = {noise.closeness.tau:g} of {ledger.plan.closeness.tau:g}); "
                f"serve with --noise {DEFAULT_NOISE}"
            )
        public = PublicTeacher.of_card(card.to_json())
        menu = build_menu(
            public, ledger.plan.answer_units, options.answers, parse_shares(options.share)
        )
        require_room(menu, ledger.plan.draws, options.answers, ledger.budget(None))
        device = resolve_device(device_name)
        teacher = TrainedTeacher.load(folder, device, options.precision, compiled=options.compile)
        threads = 1 if device.type == "cuda" else os.cpu_count() or 1
        # As many batches are computed at once as there are cores: torch's own threads would only
        # get in their way.
        torch.set_num_threads(1)
        run(teacher, public, menu, ledger, noise, options, threads, on_ready, method_offers(menu))


def _warn(ledger: Ledger) -> None:
    """Says on stderr that a ledger which nothing vouches for will answer nothing new."""
    if ledger.rolled_back is None:
        return
    print(
        f"WARNING: nothing new will be answered; only stored answers are sent.\n"
        f"  why: {ledger.rolled_back}\n"
        f"  until this is mended, the whole budget (ε = {ledger.plan.epsilon:g}) counts as spent.\n"
        "  what to do: stop this service; restore the witness file, or name where it is now "
        "(--witness FILE);\n"
        "  if it is lost, give the newest receipt of a client or an auditor's head "
        "(--trusted-head FILE).\n"
        "  If the ledger is an older copy, put the newest in its place: nothing else helps.",
        file=sys.stderr,
        flush=True,
    )
