"""Runs a service from a teacher, its public face, a ledger and options, until told to stop.

The one way in which anything is served: `teacher-server serve` brings a teacher's networks, the
rehearsal a synthetic one. No torch here.
"""

from __future__ import annotations

import asyncio
import gc
import math
import signal
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from ktan.errors import UserError
from privacy.ledger import Ledger
from privacy.noise import NoiseSource
from privacy.noise_reservoir import NoiseReservoir
from protos.limits import samples_per_request
from teacher_server.answering import Answerer, PrivateTeacher
from teacher_server.limits import Limits
from teacher_server.menu import MethodOffer, ServedTap
from teacher_server.observing.operations import operations
from teacher_server.options import ServeOptions
from teacher_server.public_teacher import PublicTeacher
from teacher_server.server import serve
from teacher_server.service import Described

_COLLECT_AFTER: Final = 20_000
"""Objects more than before, by Python's count, after which it looks for cycles."""


def run(
    teacher: PrivateTeacher,
    public: PublicTeacher,
    menu: tuple[ServedTap, ...],
    ledger: Ledger,
    noise: NoiseSource,
    options: ServeOptions,
    threads: int,
    on_ready: Callable[[dict[str, Any]], None],
    offers: tuple[MethodOffer, ...] = (),
) -> None:
    """Serves until SIGTERM or SIGINT, then drains.

    threads: calls of the teacher at once, where the options do not say. `on_ready` gets the facts
    of the service once it listens. offers: methods that the menu can serve. Raises UserError,
    before anything listens, for options that contradict each other and for answers that fit no
    message; and LedgerFault, once everything has ended, where the ledger's fault ended it.
    """
    face = describe(public, menu, options.max_samples, offers)
    answerer = Answerer(teacher, public.version, menu, ledger, NoiseReservoir(noise))
    pace = options.pace(threads)
    transport = options.transport(sum(_sizes(public, menu)))

    # What is loaded by now lives as long as the process: no collection need look at it again, each
    # of which would hold up every request. What a request leaves behind is not in cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    limits = None if options.limits is None else Limits(options.limits, ledger.plan)
    if limits is not None:
        limits.apply_caps(ledger)

    async def until_told_to_stop() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        with operations(
            options, ledger, teacher_version=public.version, mode=public.mode
        ) as watched:

            def ready(address: str) -> None:
                facts = _facts(address, public, menu, ledger)
                on_ready(facts | ({"metrics": watched.metrics} if watched.metrics else {}))

            await serve(
                face, answerer, ledger, transport, ready, stop, pace=pace,
                observer=watched.observer, health=watched.health, limits=limits,
            )  # fmt: skip

    asyncio.run(until_told_to_stop())
    # Whoever starts services again learns by the exit code of a fault that no caller met.
    ledger.require_usable()


def describe(
    public: PublicTeacher,
    menu: tuple[ServedTap, ...],
    max_samples: int,
    offers: tuple[MethodOffer, ...] = (),
) -> Described:
    """The service's public face, with as many samples a request as the messages can carry."""
    sample_bytes, answer_bytes = _sizes(public, menu)
    largest = min(max_samples, samples_per_request(sample_bytes, answer_bytes))
    if largest < 1:
        raise UserError(
            f"one sample of {sample_bytes} bytes or its answer of {answer_bytes} bytes does not "
            "fit one message; serve fewer or smaller taps"
        )
    return Described(
        teacher_version=public.version,
        mode=public.mode,
        teachers=public.teachers,
        dataset=public.dataset,
        classes=public.classes,
        input_dtype=public.input_dtype,
        input_shape=public.input_shape,
        mean=public.mean,
        standard_deviation=public.std,
        menu=menu,
        max_samples=largest,
        offers=offers,
    )


def _sizes(public: PublicTeacher, menu: tuple[ServedTap, ...]) -> tuple[int, int]:
    """Bytes of one sample and of its answer."""
    sample_bytes = math.prod(public.input_shape) * np.dtype(public.input_dtype).itemsize
    return sample_bytes, 4 * sum(math.prod(tap.shape) for tap in menu)


def _facts(
    address: str, public: PublicTeacher, menu: tuple[ServedTap, ...], ledger: Ledger
) -> dict[str, Any]:
    state = ledger.budget(None)
    return {
        "listening": address,
        "teacher_version": public.version,
        "mode": public.mode,
        "ledger": ledger.ledger_id,
        "promise": state.promise.sentence(),
        "epsilon_spent": state.epsilon_spent,
        **({"nothing_new": ledger.rolled_back} if ledger.rolled_back else {}),
        "taps": {
            tap.name: {
                "shape": tap.shape,
                "noise_sd": tap.release.noise_sd,
                "charge": tap.release.charge,
            }
            for tap in menu
        },
    }
