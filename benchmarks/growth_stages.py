"""The stages that `benchmarks.growth` measures, each on what the ones before left on disk.

A stage is a function of folder and size that imports and prepares what is not measured, and returns
what is.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from benchmarks.growth import BATCH, CLASSES, COUNT, FEATURES, HINT, REQUEST, SIDE
from ktan.answers import AnswerStore
from ktan.data import DataSource, Normalisation, SplitRecipe, split
from ktan.denoising.known import Known
from ktan.methods import Binding
from ktan.methods.ktan import KTAN
from ktan.selection import select
from ktan.spool import spooled
from ktan.teacher import AnswerTap
from ktan.trainer import TrainerOptions, train
from ktan.training_data import TrainingData
from privacy.key_history import KeyHistory
from privacy.promise import Adjacency, Promise
from privacy.receipts import Receipt, sign
from student_client.description import Budget, PricedTap, TeacherDescription
from student_client.fetching import Pool, fetch
from student_client.pin import open_store
from student_client.remote import Reply
from student_client.verification import Verifier

Stage = Callable[[], dict[str, float] | None]
WHAT = {
    "folder": "a folder of pictures, listed and decoded into the cache",
    "folder again": "the same, from the cache",
    "archives": "tar archives, listed and decoded into the cache",
    "archives again": "the same, from the cache",
    "split": "the samples divided into labelled, unlabelled and test ones, and these counted",
    "ask": "digests, requests of 64, receipts verified, answers stored durably",
    "open": "the store opened, every checksum verified, every receipt read",
    "look up": "which of all samples have an answer of every tap",
    "read": "one epoch of answers in random order, in batches of 128",
    "train": "KTAN bound to all answers, which gives hints their scale, and one epoch of a small "
    "network, in batches of 1,000",
    "shrink": "posterior means of all answers kept, and found again, as in a training on a CPU; "
    "not computed",
    "k-centre": f"{COUNT:,} queries of all samples by 128 features",
    "margin": f"{COUNT:,} queries of all samples by 10 logits",
    "margin+kcentre": f"{COUNT:,} queries, both criteria",
}
PROMISE = Promise(4.0, 1e-5, Adjacency.REPLACE_ONE, "record", None)
CHARGE = 10
TAPS = (
    AnswerTap("probabilities", "probabilities", (CLASSES,), noise_sd=0.1, temperature=3.0),
    AnswerTap("hint", "hint", (HINT,), noise_sd=0.5),
)


@dataclass
class InProcess:
    """A teacher that answers by random numbers and signs true receipts."""

    size: int
    key: Ed25519PrivateKey = field(
        default_factory=lambda: Ed25519PrivateKey.from_private_bytes(b"growth".ljust(32))
    )
    entry: int = 0
    spent: int = 0
    connection: Any = field(default_factory=lambda: SimpleNamespace(patience=0.0))
    alone: threading.Lock = field(default_factory=threading.Lock)

    def describe(self) -> TeacherDescription:
        public = self.key.public_key().public_bytes_raw()
        budget = self.size * CHARGE * len(TAPS)
        return TeacherDescription(
            address="in this process",
            version="f" * 32,
            mode="ensemble",
            teachers=200,
            dataset="synthetic",
            classes=tuple(str(label) for label in range(CLASSES)),
            input_name="images",
            input_dtype="uint8",
            input_shape=(3, 8, 8),
            normalisation=None,
            taps=tuple(PricedTap(tap, 1.0, CHARGE) for tap in TAPS),
            promise=PROMISE,
            budget=Budget(budget, 0, budget, 0, 0, budget, 0.0, 4.0, 1 << 40),
            max_samples=REQUEST,
            public_key=public,
            ledger_id="a" * 32,
            keys=KeyHistory.starting_with("a" * 32, public),
            taps_by_name=True,
        )

    def query(
        self,
        request_id: str,
        samples: np.ndarray,
        input_name: str,
        taps: Sequence[str] = (),
        *,
        started: object = None,
    ) -> Reply:
        # Several requests may be under way at once.
        with self.alone:
            return self._answer(request_id, samples)

    def _answer(self, request_id: str, samples: np.ndarray) -> Reply:
        self.entry += 1
        random = np.random.default_rng(self.entry)
        charge = len(samples) * CHARGE * len(TAPS)
        self.spent += charge
        receipt = Receipt(
            ledger_id="a" * 32,
            entry=self.entry,
            entry_hash=hashlib.sha256(self.entry.to_bytes(8, "little")).digest(),
            client="growth",
            request_id=request_id,
            charge=charge,
            draws=len(samples) * (CLASSES + HINT),
            spent=self.spent,
            budget=self.size * CHARGE * len(TAPS),
            epsilon_spent=1.0,
            promise=PROMISE,
        )
        answers = {
            tap.name: random.standard_normal((len(samples), *tap.shape), dtype=np.float32)
            for tap in TAPS
        }
        return Reply(answers, sign(receipt, self.key).to_json_bytes(), len(samples))


def _source(folder: Path, kind: str) -> DataSource:
    names = {
        "folder": f"imagefolder:{folder}/pictures",
        "archives": f"webdataset:{folder}/archives",
    }
    return DataSource(names[kind], data_root=folder / "data")


def _load(kind: str) -> Callable[[Path, int], Stage]:
    def stage(folder: Path, size: int) -> Stage:
        def load() -> None:
            assert len(_source(folder, kind).load()) == size

        return load

    return stage


def _digests(folder: Path, size: int) -> np.ndarray:
    return np.load(folder / "digests.npy", mmap_mode="r")[:size]


def split_samples(folder: Path, size: int) -> Stage:
    dataset = _source(folder, "archives").load()
    few = size // 100

    def run() -> None:
        recipe = SplitRecipe(labelled=few, unlabelled=size - 2 * few, test=few)
        assert sum(split(dataset, recipe).counts.values()) == size

    return run


def ask(folder: Path, size: int) -> Stage:
    samples = _source(folder, "archives").load().samples
    teacher = InProcess(size)

    def run() -> dict[str, float]:
        description = teacher.describe()
        pool = Pool(samples)
        store = open_store(folder / "answers", description)
        verifier = Verifier.of(description, store)
        fetch(teacher, description, store, verifier, pool, pool.digests, batch=REQUEST)  # type: ignore[arg-type]
        np.save(folder / "digests.npy", pool.digests)
        files = sum(1 for _ in (folder / "answers").rglob("*.safetensors"))
        return {"files": files}

    return run


def open_again(folder: Path, size: int) -> Stage:
    def run() -> None:
        store = AnswerStore.open(folder / "answers")
        assert sum(1 for _ in store.receipts()) == -(-size // REQUEST)

    return run


def look_up(folder: Path, size: int) -> Stage:
    store, digests = AnswerStore.open(folder / "answers"), _digests(folder, size)

    def run() -> None:
        assert not store.missing(digests).any()

    return run


def read(folder: Path, size: int) -> Stage:
    store, digests = AnswerStore.open(folder / "answers"), _digests(folder, size)

    def run() -> None:
        rows = store.rows(digests)
        order = torch.randperm(size, generator=torch.Generator().manual_seed(0))
        total = 0
        for batch in order.split(BATCH):
            total += sum(len(view[batch]) for view in rows.values())
        assert total == size * len(TAPS)

    return run


def train_on_answers(folder: Path, size: int) -> Stage:
    source = _source(folder, "archives").load()
    store, digests = AnswerStore.open(folder / "answers"), _digests(folder, size)
    torch.manual_seed(0)
    student = nn.Sequential(
        nn.Flatten(), nn.Linear(3 * SIDE * SIDE, HINT), nn.ReLU(), nn.Linear(HINT, CLASSES)
    )
    # The posterior mean takes a millisecond an answer, and would be all that is measured.
    method = KTAN(denoise="simplex")
    options = TrainerOptions(epochs=1, answered_batch=1_000, device="cpu", precision="float32")

    def run() -> None:
        answers = store.rows(digests)
        taps = {tap.name: tap for tap in TAPS}
        binding = Binding(student, (3, SIDE, SIDE), CLASSES, taps, {"hint": ("2",)}, answers)
        train(
            student,
            method.build(binding),
            TrainingData(
                source.samples[:1_000], source.labels[:1_000], source.samples, answers=answers
            ),
            options,
            normalise=Normalisation((127.5,) * 3, (73.6,) * 3),
            progress=False,
        )

    return run


def shrink(folder: Path, size: int) -> Stage:
    def run() -> None:
        known = Known(torch.empty(CLASSES))
        for _ in ("kept", "found again"):
            generator = torch.Generator().manual_seed(0)
            for start in range(0, size, 1_000):
                rows = torch.rand(min(1_000, size - start), CLASSES, generator=generator)
                # The mean itself takes a millisecond, and no memory that grows.
                known.values(rows, lambda row: row)
            assert len(known) == size

    return run


def _choose(name: str) -> Callable[[Path, int], Stage]:
    def stage(folder: Path, size: int) -> Stage:
        generator = torch.Generator().manual_seed(0)

        def drawn(width: int) -> torch.Tensor:
            """As a student's are: made a thousand at a time."""
            whole = spooled((size, width), torch.float32)
            for part in whole.split(1000):
                part.copy_(torch.randn(len(part), width, generator=generator).relu_())
            return whole

        def run() -> None:
            rows = select(
                name,  # type: ignore[arg-type]
                COUNT,
                size,
                features=lambda: drawn(FEATURES),
                logits=lambda: drawn(CLASSES),
                generator=generator,
            )
            assert len(rows.unique()) == COUNT

        return run

    return stage


STAGES: dict[str, Callable[[Path, int], Stage]] = {
    "folder": _load("folder"),
    "folder again": _load("folder"),
    "archives": _load("archives"),
    "archives again": _load("archives"),
    "split": split_samples,
    "ask": ask,
    "open": open_again,
    "look up": look_up,
    "read": read,
    "train": train_on_answers,
    "shrink": shrink,
    "k-centre": _choose("kcentre"),
    "margin": _choose("margin"),
    "margin+kcentre": _choose("margin+kcentre"),
}
