"""Where a student's answers come from: a private service, or a teacher's folder without privacy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ktan.answers import AnswerStore
from ktan.teacher import AnswerTap
from ktan.teachers import LocalTeacher
from privacy.receipts import Receipt
from student_client import provenance
from student_client.connection import Connection
from student_client.cost import quote, require_affordable
from student_client.describe import promise_text, quote_text
from student_client.description import TeacherDescription
from student_client.errors import TeacherError, TeacherUnavailable
from student_client.fetching import Pool, batch_size, fetch
from student_client.patience import patiently
from student_client.pin import Pin, open_store
from student_client.provenance import Provenance
from student_client.public_data import PublicData, check_suits
from student_client.queries import Chosen
from student_client.remote import RemoteTeacher
from student_client.screen import Screen
from student_client.verification import Verifier


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers to the chosen samples, in their order, and under what they were given."""

    values: Mapping[str, Tensor]
    """Tap → float32 [n, ...]."""
    provenance: Provenance
    charged: int
    """Samples that were ever charged for them; 0 where answers are free."""


class Source(Protocol):
    """Answers chosen public samples. `prepare` comes first and spends nothing."""

    def prepare(self, public: PublicData, chosen: Chosen | None) -> Mapping[str, AnswerTap]:
        """The taps. Raises UserError when the teacher does not suit the data."""
        ...

    def answers(self, public: PublicData, chosen: Chosen) -> Answers:
        """The answers, which may cost something."""
        ...

    def close(self) -> None: ...


class LocalSource:
    """A teacher's folder on this machine, asked without noise and without a ledger."""

    def __init__(self, folder: Path, device: str, screen: Screen):
        self._folder = folder
        self._device = device
        self._screen = screen

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
        return self._teacher.taps

    def answers(self, public: PublicData, chosen: Chosen) -> Answers:
        values = self._teacher.answer(public.unlabelled[chosen.rows])
        mode = self._teacher.models.card.mode
        origin = provenance.unprotected(
            f"file:{self._folder}", self._teacher.version, mode, len(chosen.rows)
        )
        return Answers(values, origin, charged=0)

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
    ):
        self._address = address
        self._connection = connection
        self._folder = folder
        self._batch = batch
        self._screen = screen
        self._agreed = agreed
        self._teacher: RemoteTeacher | None = None
        self._description: TeacherDescription | None = None

    def prepare(self, public: PublicData, chosen: Chosen | None) -> Mapping[str, AnswerTap]:
        """Asks the service what it is, unless everything that is `chosen` is here already."""
        if chosen is not None and Pin.read(self._folder) is not None:
            store = AnswerStore.open(self._folder)
            digests = Pool(public.unlabelled[chosen.rows]).digests
            if not store.missing(digests).any() and not store.pending():
                return {tap.name: tap for tap in store.manifest.taps}
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
        batch_size(description, self._batch)
        self._description = description
        many = "s" if description.teachers != 1 else ""
        self._screen.fact(
            "Teacher",
            f"{description.mode}, {description.teachers:,} teacher{many}, at {self._address}",
        )
        self._screen.fact("Promise", promise_text(description.promise))
        return {tap.name: tap for tap in description.answer_taps}

    def answers(self, public: PublicData, chosen: Chosen) -> Answers:
        pool = Pool(public.unlabelled)
        wanted = pool.digests[chosen.rows.numpy()]
        if self._teacher is not None and self._description is not None:
            store = open_store(self._folder, self._description)
            self._fetch(self._teacher, self._description, store, pool, wanted)
        else:
            store = AnswerStore.open(self._folder)
        pin = Pin.read(self._folder)
        assert pin is not None
        receipts = [Receipt.from_json(values) for values in store.receipts()]
        origin = provenance.private(
            self._address,
            store.manifest.teacher_version,
            pin.promise,
            pin.ledger_id,
            receipts,
            len(wanted),
        )
        charged = origin.charge // pin.charge if pin.charge else 0
        return Answers(store.answers(wanted), origin, charged)

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
        begun = [request.digests for request in store.pending()]
        missing = wanted[store.missing(wanted)]
        new = len(np.unique(np.concatenate([*begun, missing]), axis=0))
        if new == 0:
            self._screen.fact("Cost", f"nothing: all {len(wanted):,} answers are here already")
            return
        budget, _ = patiently(teacher.budget, self._connection.patience, self._screen.waiting)
        price = quote(description, budget, new)
        # What an earlier run began may have been charged then: it alone is not refused here.
        certain = new - len(np.unique(np.concatenate(begun), axis=0)) if begun else new
        require_affordable(quote(description, budget, certain), description)
        self._screen.say(quote_text(price, description, max(len(wanted), new)))
        if price.charge and not self._agreed:
            self._screen.agree("Spend it?")
        try:
            with self._screen.fetching(new) as bar:
                fetch(
                    teacher,
                    description,
                    store,
                    Verifier.of(description, store),
                    pool,
                    wanted,
                    batch=self._batch,
                    progress=bar,
                )
        except (TeacherError, TeacherUnavailable, KeyboardInterrupt):
            here = len(wanted) - int(store.missing(wanted).sum())
            self._screen.say(f"{here:,} of {len(wanted):,} answers are stored in {self._folder}")
            raise
