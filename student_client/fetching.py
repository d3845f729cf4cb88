"""Asks for the answers that are missing, pays for each once, and loses none to a crash.

Per request: its id, samples and taps go to disk, then to the service; the receipt is verified, then
answers and receipt go to disk together. Whatever stops in between, the next run sends the same
request again under the same id and gets the same answers at no further charge.
"""

from __future__ import annotations

import functools
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ktan.answers import AnswerStore, DigestRows, PendingRequest, different
from ktan.digests import sample_digests
from ktan.errors import UserError
from ktan.teacher import AnswerTap
from protos.limits import samples_per_request
from student_client.description import TeacherDescription
from student_client.errors import RequestRefused
from student_client.patience import patiently
from student_client.pin import open_store
from student_client.progress import Progress, Silent
from student_client.remote import RemoteTeacher
from student_client.verification import Verifier

Samples = npt.NDArray[np.generic]
"""uint8 or float32 [n, *input shape]."""


class Pool:
    """The public samples that may be asked about, found by digest.

    samples: [n, *input shape], never copied as a whole; digests: uint8 [n, 32].
    """

    def __init__(self, samples: torch.Tensor, digests: npt.NDArray[np.uint8] | None = None):
        self._samples = samples
        self.digests = sample_digests(samples) if digests is None else digests

    @functools.cached_property
    def _rows(self) -> DigestRows:
        return DigestRows(self.digests)

    def rows(self, digests: npt.NDArray[np.uint8]) -> Samples | None:
        """The samples with these digests, in their order; None when one of them is not here."""
        rows = self._rows.find(digests)
        if (rows < 0).any():
            return None
        taken: Samples = self._samples[torch.from_numpy(rows)].numpy()
        return taken


@dataclass(frozen=True)
class Fetched:
    """What one `fetch` did."""

    requests: int = 0
    samples: int = 0
    """Samples whose answers came."""
    charged: int = 0
    """Of those, the ones that the service charged now rather than had answered before."""
    charge: int = 0
    """What they cost, by their receipts."""


def lacking(
    store: AnswerStore, wanted: npt.NDArray[np.uint8], taps: Sequence[str]
) -> dict[tuple[str, ...], npt.NDArray[np.uint8]]:
    """What is not in `store` of these taps of `wanted` (digests, uint8 [n, 32]).

    The taps that a sample lacks → the different samples that lack just these, in their order. What
    is here of a sample is not asked again.
    """
    if not taps:
        return {}
    wanted = different(wanted)
    absent = np.zeros((len(wanted), len(taps)), dtype=bool)
    for column, name in enumerate(taps):
        absent[:, column] = store.missing(wanted, [name])
    patterns, first, group = np.unique(absent, axis=0, return_index=True, return_inverse=True)
    groups = {}
    for number in np.argsort(first).tolist():
        names = tuple(name for column, name in enumerate(taps) if patterns[number, column])
        if names:
            groups[names] = wanted[group.reshape(-1) == number]
    return groups


def batch_size(
    description: TeacherDescription, wanted: int, taps: Sequence[str] | None = None
) -> int:
    """Samples in one request: `wanted`, or fewer where the service or the wire carries no more.

    taps: those that are asked of them, all when None.

    Raises UserError for a batch below one, or a sample too large for any request.
    """
    if wanted < 1:
        raise UserError(f"--query-batch is {wanted}; it must be at least 1")
    sample_bytes = (
        int(np.prod(description.input_shape)) * np.dtype(description.input_dtype).itemsize
    )
    answer_bytes = 4 * sum(
        math.prod(tap.shape) for tap in description.answer_taps if taps is None or tap.name in taps
    )
    fits = samples_per_request(sample_bytes, answer_bytes)
    if fits < 1:
        raise UserError(
            f"one sample of {sample_bytes:,} bytes with an answer of {answer_bytes:,} bytes "
            "does not fit into one message"
        )
    return min(wanted, description.max_samples, fits)


def fetch(
    teacher: RemoteTeacher,
    description: TeacherDescription,
    store: AnswerStore,
    verifier: Verifier,
    pool: Pool,
    wanted: npt.NDArray[np.uint8],
    *,
    taps: Sequence[str] | None = None,
    batch: int = 64,
    progress: Progress | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Brings these taps (all when None) of `wanted` (digests, uint8 [n, 32]) into `store`.

    What is there already is not asked again, tap by tap. Requests begun by an earlier run are
    finished first, under their own ids; one that the service refuses is forgotten, and said so to
    `progress`. Raises BudgetRefused or another TeacherError when the
    service refuses, UserError before anything is asked of an older service that would charge more
    taps than these, TeacherUnavailable after `patience` seconds without a service, UserError for a
    begun request whose samples are not in `pool`. What came before any of these is stored, also at
    ctrl-C.
    """
    courier = _Courier(teacher, description, store, verifier, pool, progress or Silent(), sleep)
    asked = description.tap_names if taps is None else taps
    for names in lacking(store, wanted, asked):
        description.require_askable(names)
    for request in store.pending():
        courier.resume(request)
    for names, missing in lacking(store, wanted, asked).items():
        size = batch_size(description, batch, names)
        for start in range(0, len(missing), size):
            request = PendingRequest(str(uuid.uuid4()), missing[start : start + size], names)
            store.begin(request.request_id, request.digests, names)
            courier.send(request)
    return courier.fetched


@dataclass
class _Courier:
    teacher: RemoteTeacher
    description: TeacherDescription
    store: AnswerStore
    verifier: Verifier
    pool: Pool
    progress: Progress
    sleep: Callable[[float], None]
    fetched: Fetched = Fetched()

    def resume(self, request: PendingRequest) -> None:
        """Sends what an earlier run began, which may be more than is wanted now, or affordable."""
        if not self.description.charges_alone(request.taps):
            # Had it been charged, it was for all taps: under another id these come again free.
            self.store.abandon(request.request_id)
            self.progress.forget(
                f"an earlier run began to ask about single taps of {len(request.digests):,} "
                "samples, which this older service does not know; this is forgotten"
            )
            return
        try:
            self.send(request)
        except RequestRefused as error:
            self.progress.forget(
                f"an earlier run began to ask about {len(request.digests):,} samples; this was "
                f"refused, and is forgotten: {error}"
            )

    def send(self, request: PendingRequest) -> None:
        samples = self.pool.rows(request.digests)
        if samples is None:
            raise UserError(
                f"{self.store.folder} holds a request begun for samples that are not in the "
                "public part of this data set; run with the data and split that it was begun with"
            )
        # All is said by none, as an older service takes it.
        names = () if set(request.taps) == set(self.description.tap_names) else request.taps
        try:
            reply = patiently(
                lambda: self.teacher.query(
                    request.request_id, samples, self.description.input_name, names
                ),
                self.teacher.connection.patience,
                self.progress.wait,
                self.sleep,
            )
        except RequestRefused:
            # Sent again it would be refused again; had it ever been charged, its samples are
            # answered free under any other id.
            self.store.abandon(request.request_id)
            raise
        count, taps = len(samples), request.taps
        receipt = self.verifier.receipt(reply.receipt, request.request_id, count, taps)
        answers = self.verifier.answers(reply.answers, count, taps)
        self.store.finish(request.request_id, answers, receipt.to_json())
        self.fetched = Fetched(
            requests=self.fetched.requests + 1,
            samples=self.fetched.samples + len(samples),
            charged=self.fetched.charged + reply.charged,
            charge=self.fetched.charge + receipt.charge,
        )
        self.progress.advance(len(samples), receipt.epsilon_spent)


class FetchingTeacher:
    """A `Teacher` behind the answer store: what is stored is free, the rest is asked and paid.

    `asks`: names of the published taps that are asked, and paid for; all when None. `pool` holds
    the public samples among which requests of an earlier run may be found; those that are asked
    about must be in it. No question is asked before paying: `cost.py` quotes.
    """

    def __init__(
        self,
        teacher: RemoteTeacher,
        description: TeacherDescription,
        store: AnswerStore,
        verifier: Verifier,
        *,
        asks: Sequence[str] | None = None,
        pool: Pool | None = None,
        batch: int = 64,
        progress: Progress | None = None,
    ):
        self._teacher = teacher
        self._description = description
        self._store = store
        self._verifier = verifier
        self._asks = description.tap_names if asks is None else tuple(asks)
        if unknown := set(self._asks) - set(description.tap_names):
            raise UserError(
                f"the teacher answers no {', '.join(sorted(unknown))}; it answers "
                f"{', '.join(description.tap_names)}"
            )
        description.require_askable(self._asks)
        self._pool = pool
        self._batch = batch
        self._progress = progress
        self.fetched = Fetched()

    @classmethod
    def open(
        cls, teacher: RemoteTeacher, folder: Path, asks: Sequence[str] | None = None
    ) -> FetchingTeacher:
        """The teacher with its answers kept in `folder`, created and pinned on first use.

        `asks`: names of the published taps that are asked; all when None.

        Raises UserError when the folder belongs to another teacher, price, ledger or key, or when
        an older service would charge for other taps than `asks`, and TeacherError when the service
        refuses to describe itself.
        """
        description = teacher.describe()
        store = open_store(folder, description)
        return cls(teacher, description, store, Verifier.of(description, store), asks=asks)

    @property
    def taps(self) -> Mapping[str, AnswerTap]:
        """As published, of those that are asked."""
        return {tap.name: tap for tap in self._description.answer_taps if tap.name in self._asks}

    def answer(self, samples: torch.Tensor) -> dict[str, torch.Tensor]:
        """Answers to `samples` (uint8 or float32 [n, ...]); raises as `fetch` does."""
        digests = sample_digests(samples)
        pool = self._pool or Pool(samples, digests)
        self.fetched = fetch(
            self._teacher,
            self._description,
            self._store,
            self._verifier,
            pool,
            digests,
            taps=self._asks,
            batch=self._batch,
            progress=self._progress,
        )
        return self._store.answers(digests, self._asks)
