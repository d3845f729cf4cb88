"""Where a student's answers come from: a private service, or a teacher's folder without privacy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ktan.answers import AnswerStore, read_manifest
from ktan.data_parts import Rows
from ktan.digests import sample_digests
from ktan.teacher import AnswerTap
from ktan.teachers import LocalTeacher
from privacy.receipts import Receipt
from student_client import provenance
from student_client.agreement import Agreement
from student_client.connection import Connection
from student_client.cost import quote, require_affordable
from student_client.describe import promise_text
from student_client.description import TeacherDescription
from student_client.errors import TeacherError, TeacherUnavailable
from student_client.fetching import Pool, batch_size, fetch, require_in_flight
from student_client.options import IN_FLIGHT
from student_client.order import Order
from student_client.patience import patiently
from student_client.pin import Pin, open_store
from student_client.provenance import Provenance
from student_client.public_data import PublicData, check_suits
from student_client.queries import Chosen
from student_client.remote import RemoteTeacher
from student_client.screen import Screen
from student_client.tap_choice import TapChoice, all_taps
from student_client.verification import Verifier


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers to the chosen samples, in their order, and under what they were given."""

    values: Mapping[str, Rows]
    """Tap → float32 [n, ...]; of a service read from its store's files in step with the samples."""
    provenance: Provenance
    charged: int
    """Samples that were ever charged for them; 0 where answers are free."""


class Source(Protocol):
    """Answers chosen public samples. `prepare` comes first and spends nothing."""

    def prepare(self, public: PublicData, chosen: Chosen | None) -> Mapping[str, AnswerTap]:
        """The taps. Raises UserError when the teacher does not suit the data."""
        ...

    def agree(self, public: PublicData, chosen: Chosen, later: int) -> None:
        """Says what `chosen` and `later` samples, not chosen yet, cost together, and asks for a
        yes; `answers` then asks no more questions. Spends nothing."""
        ...

    def answers(self, public: PublicData, chosen: Chosen) -> Answers:
        """The answers, which may cost something; more, maybe, than memory holds."""
        ...

    def stored(self, public: PublicData, chosen: Chosen) -> Tensor:
        """bool [queries]: what is answered already; no service is asked."""
        ...

    def close(self) -> None: ...


class LocalSource:
    """A teacher's folder on this machine, asked without noise and without a ledger."""

    def __init__(self, folder: Path, device: str, screen: Screen, taps: TapChoice = all_taps):
        self._folder = folder
        self._device = device
        self._screen = screen
        self._choose_taps = taps

    def prepare(self, public: PublicData, chosen: Chosen | None) -> Mapping[str, AnswerTap]:
        self._teacher = LocalTeacher.load(self._folder, self._device)
        card = self._teacher.models.card
        whose = f"the teacher in {self._folder}"
        check_suits(public, card.input_dtype, card.input_shape, card.classes, whose)
        self._screen.fact(
            "Teacher",
            f"{provenance.UNPROTECTED.upper()}: {card.mode} teacher in {self._folder}, without "
            "noise and under no promise",
        )
        self._taps = self._choose_taps(self._teacher.taps)
        return self._taps

    def agree(self, public: PublicData, chosen: Chosen, later: int) -> None:
        pass

    def answers(self, public: PublicData, chosen: Chosen) -> Answers:
        said = self._teacher.answer(public.unlabelled[chosen.rows])
        values = {name: said[name] for name in self._taps}
        mode = self._teacher.models.card.mode
        origin = provenance.unprotected(
            f"file:{self._folder}", self._teacher.version, mode, len(chosen.rows)
        )
        return Answers(values, origin, charged=0)

    def stored(self, public: PublicData, chosen: Chosen) -> Tensor:
        return torch.ones(len(chosen.rows), dtype=torch.bool)

    def close(self) -> None:
        pass


class ServiceSource:
    """A private teacher behind its service; every answer is paid once and kept in `folder`."""

    def __init__(
        self,
        address: str,
        connection: Connection,
        folder: Path,
        batch: int,
        screen: Screen,
        *,
        agreed: bool,
        in_flight: int = IN_FLIGHT,
        taps: TapChoice = all_taps,
        asked_elsewhere: bool = False,
    ):
        """agreed: pay without asking. taps: which of the teacher's are asked, and paid for.
        asked_elsewhere: another process has asked; what it stored is read, and nobody is asked."""
        self._address = address
        self._connection = connection
        self._folder = folder
        self._batch = batch
        self._in_flight = in_flight
        self._screen = screen
        self._agreement = Agreement(screen, folder, beforehand=agreed)
        self._choose_taps = taps
        self._asked_elsewhere = asked_elsewhere
        self._asked: tuple[str, ...] = ()
        self._teacher: RemoteTeacher | None = None
        self._description: TeacherDescription | None = None

    def prepare(self, public: PublicData, chosen: Chosen | None) -> Mapping[str, AnswerTap]:
        """Asks the service what it is, unless everything that is `chosen` is here already."""
        if self._asked_elsewhere:
            return self._chosen_taps(read_manifest(self._folder).taps)
        if chosen is not None and Pin.read(self._folder) is not None:
            store = AnswerStore.open(self._folder)
            digests = sample_digests(public.unlabelled, chosen.rows)
            taps = self._chosen_taps(store.manifest.taps)
            # Where nothing more is to be asked a begun request stays begun: it may not be paid yet.
            begun = not chosen.closed and bool(store.pending())
            if not begun and not store.missing(digests, self._asked).any():
                return taps
        self._teacher = RemoteTeacher(self._address, self._connection)
        description = patiently(
            self._teacher.describe, self._connection.patience, self._screen.waiting
        )
        check_suits(
            public,
            description.input_dtype,
            description.input_shape,
            description.classes,
            f"the teacher at {self._address}",
        )
        taps = self._chosen_taps(description.answer_taps)
        description.require_askable(self._asked)
        batch_size(description, self._batch, self._asked)
        require_in_flight(self._in_flight)
        self._description = description
        many = "s" if description.teachers != 1 else ""
        self._screen.fact(
            "Teacher",
            f"{description.mode}, {description.teachers:,} teacher{many}, at {self._address}",
        )
        self._screen.fact("Promise", promise_text(description.promise))
        return taps

    def _chosen_taps(self, published: Iterable[AnswerTap]) -> Mapping[str, AnswerTap]:
        """Raises UserError where they do not suffice."""
        taps = self._choose_taps({tap.name: tap for tap in published})
        self._asked = tuple(taps)
        return taps

    def agree(self, public: PublicData, chosen: Chosen, later: int) -> None:
        if self._teacher is None or self._description is None:
            return
        store = open_store(self._folder, self._description)
        candidates = Pool(public.unlabelled).digests
        wanted = candidates[chosen.rows.numpy()]
        self._quote(self._teacher, self._description, store, wanted, later, candidates)

    def answers(self, public: PublicData, chosen: Chosen) -> Answers:
        pool = Pool(public.unlabelled)
        wanted = pool.digests[chosen.rows.numpy()]
        if self._teacher is not None and self._description is not None:
            store = open_store(self._folder, self._description)
            self._fetch(self._teacher, self._description, store, pool, wanted)
        else:
            # One process writes.
            store = AnswerStore.open(self._folder, read_only=self._asked_elsewhere)
        pin = Pin.read(self._folder)
        assert pin is not None
        receipts = [Receipt.from_json(values) for values in store.receipts(wanted, self._asked)]
        origin = provenance.private(
            self._address,
            store.manifest.teacher_version,
            pin.promise,
            pin.ledger_id,
            receipts,
            len(wanted),
        )
        price = pin.charge_of(self._asked)
        # A request may have brought what another run wants, too.
        charged = min(origin.charge // price, len(wanted)) if price else 0
        return Answers(store.rows(wanted, self._asked), origin, charged)

    def stored(self, public: PublicData, chosen: Chosen) -> Tensor:
        digests = sample_digests(public.unlabelled, chosen.rows)
        if Pin.read(self._folder) is None:
            return torch.zeros(len(digests), dtype=torch.bool)
        store = AnswerStore.open(self._folder)
        self._chosen_taps(store.manifest.taps)
        return torch.from_numpy(~store.missing(digests, self._asked))

    def close(self) -> None:
        if self._teacher is not None:
            self._teacher.close()

    def _fetch(
        self,
        teacher: RemoteTeacher,
        description: TeacherDescription,
        store: AnswerStore,
        pool: Pool,
        wanted: npt.NDArray[np.uint8],
    ) -> None:
        new = self._quote(teacher, description, store, wanted, later=0)
        if new == 0:
            return
        try:
            with self._screen.fetching(new) as bar:
                fetched = fetch(
                    teacher,
                    description,
                    store,
                    Verifier.of(description, store),
                    pool,
                    wanted,
                    taps=self._asked,
                    batch=self._batch,
                    in_flight=self._in_flight,
                    progress=bar,
                )
        except (TeacherError, TeacherUnavailable, KeyboardInterrupt):
            here = len(wanted) - int(store.missing(wanted, self._asked).sum())
            self._screen.say(f"{here:,} of {len(wanted):,} answers are stored in {self._folder}")
            raise
        self._agreement.spend(fetched.charge)

    def _quote(
        self,
        teacher: RemoteTeacher,
        description: TeacherDescription,
        store: AnswerStore,
        wanted: npt.NDArray[np.uint8],
        later: int,
        candidates: npt.NDArray[np.uint8] | None = None,
    ) -> int:
        """How many of `wanted`, and `later` of `candidates`, are to be asked, after a yes to their
        price.

        What was quoted and agreed before is only held against the budget again, unless requests
        that another run began here meanwhile make it more. Raises BudgetRefused where the budget
        does not suffice.
        """
        order = Order.of(store, wanted, self._asked, later, candidates)
        new = order.samples
        if new == 0:
            self._agreement.nothing(len(wanted))
            return 0
        budget, _ = patiently(teacher.budget, self._connection.patience, self._screen.waiting)
        require_affordable(quote(description, budget, order.certain))
        self._agreement.cover(
            quote(description, budget, order.at_most),
            quote(description, budget, order.own.at_most),
            description,
            max(len(wanted) + later, new),
        )
        return new
