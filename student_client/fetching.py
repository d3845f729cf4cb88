"""Asks for the answers that are missing, pays for each once, and loses none to a crash.

Per request: its id, samples and taps go to disk, then to the service; the receipt is verified, then
answers and receipt go to disk together. Several are under way at once (courier.py). Whatever stops
in between, the next run sends the same requests again under the same ids and gets the same answers
at no further charge.
"""

from __future__ import annotations

import functools
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ktan.answers import AnswerStore, DigestRows, PendingRequest, different
from ktan.digests import sample_digests
from ktan.errors import UserError
from ktan.teacher import AnswerTap
from protos.limits import samples_per_request
from student_client.courier import Courier, Fetched
from student_client.description import TeacherDescription
from student_client.options import IN_FLIGHT
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


def require_in_flight(requests: int) -> None:
    """Raises UserError where so many requests cannot be under way at once."""
    if requests < 1:
        raise UserError(f"--in-flight is {requests}; it must be at least 1")


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
    in_flight: int = IN_FLIGHT,
    progress: Progress | None = None,
) -> Fetched:
    """Brings these taps (all when None) of `wanted` (digests, uint8 [n, 32]) into `store`.

    What is there already is not asked again, tap by tap. Up to `in_flight` requests of `batch`
    samples are under way at once. Requests begun by an earlier run are finished first, under their
    own ids; one that the service refuses is forgotten, and said so to `progress`. Raises
    BudgetRefused or another TeacherError when the service refuses, UserError before anything is
    asked of an older service that would charge more taps than these, TeacherUnavailable after
    `patience` seconds without a service, UserError for a begun request whose samples are not in
    `pool`. What came before any of these is stored, also at ctrl-C; what was under way is stored
    too, but for ctrl-C, which leaves it begun.
    """
    require_in_flight(in_flight)
    courier = Courier(teacher, description, store, verifier, pool, progress or Silent(), in_flight)
    asked = description.tap_names if taps is None else taps
    for names in lacking(store, wanted, asked):
        description.require_askable(names)
    courier.resume(iter(store.pending()))
    courier.carry(_begun(description, store, lacking(store, wanted, asked), batch))
    return courier.fetched


def _begun(
    description: TeacherDescription,
    store: AnswerStore,
    missing: Mapping[tuple[str, ...], npt.NDArray[np.uint8]],
    batch: int,
) -> Iterator[PendingRequest]:
    """Requests for what is missing; each is on disk when it is drawn, and not before."""
    for names, digests in missing.items():
        size = batch_size(description, batch, names)
        for start in range(0, len(digests), size):
            request = PendingRequest(str(uuid.uuid4()), digests[start : start + size], names)
            store.begin(request.request_id, request.digests, names)
            yield request


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
        in_flight: int = IN_FLIGHT,
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
        self._in_flight = in_flight
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
            in_flight=self._in_flight,
            progress=self._progress,
        )
        return self._store.answers(digests, self._asks)
