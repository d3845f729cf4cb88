"""What may go wrong without anybody noticing, as code that makes it go wrong.

Each fault replaces one thing before the suite's own tests run in a process of their own, and names
those of them that must notice.
"""

import math
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Fault:
    """A way to break the system: `plant` breaks it, `tests` are those that must fail then.

    notice: matches one line of their output for each failure; by default an assertion in the
        test's own lines.
    """

    plant: Callable[[], None]
    tests: tuple[str, ...]
    notice: str = (
        r"^\S*/tests/(?!planted_faults)\S+\.py:\d+: (assert |AssertionError|Failed: DID NOT RAISE)"
    )


def noise_too_small() -> None:
    """Noise of 0.95 of the deviation that is charged for."""
    _through_every_source(lambda drawn: np.trunc(drawn * 0.95).astype(np.int64))


def noise_from_a_seedable_generator() -> None:
    """Whoever knows the seed subtracts the noise."""
    from privacy.accounting import SIGMA

    def drawn(source: Any, count: int) -> np.ndarray:
        return np.rint(np.random.normal(0.0, SIGMA, count)).astype(np.int64)

    _every_source("sample", drawn)


def noise_reused() -> None:
    """The noise of one request serves the next one, too: their difference has none."""
    kept: dict[tuple[str, int], np.ndarray] = {}

    def again(original: Callable[..., Any]) -> Callable[..., Any]:
        def drawn(source: Any, count: int) -> np.ndarray:
            if (source.name, count) not in kept:
                kept[source.name, count] = original(source, count)
            return kept[source.name, count].copy()

        return drawn

    _wrap_every_source(again)


def charge_after_send() -> None:
    """The answer leaves, and is settled later."""
    from privacy.ledger import Ledger, Settlement
    from privacy.ledger.request import Request
    from privacy.promise import Adjacency, Promise
    from privacy.receipts import Receipt

    settle_all = Ledger.settle_all

    def later(ledger: Ledger, requests: Sequence[Request]) -> list[Settlement]:
        # Not before the slowest test is over; and the process does not wait for it.
        timer = threading.Timer(600.0, settle_all, (ledger, requests))
        timer.daemon = True
        timer.start()
        promise = Promise(1.0, 1e-5, Adjacency.REPLACE_ONE, "record")
        return [
            Settlement(
                [request.pending[key].payload for key in request.keys],
                Receipt(
                    ledger.ledger_id, 1, bytes(32), request.client, request.request_id,
                    0, 0, 0, 0, 0.0, promise,
                ),
                0,
                len(request.pending),
            )
            for request in requests
        ]  # fmt: skip

    Ledger.settle_all = later  # type: ignore[method-assign,assignment]


def clip_by_largest_entry() -> None:
    """L∞ in place of L2: a row of m equal entries keeps √m times the norm that is charged for."""
    from privacy import bounding

    def clipped(rows: np.ndarray, bound: float, *, centred: bool) -> np.ndarray:
        return np.clip(rows - rows.mean(-1, keepdims=True) if centred else rows, -bound, bound)

    bounding._to_ball = clipped


def derived_tap_without_a_bound() -> None:
    """Attention has unit norm by construction, so somebody leaves its bound unenforced."""
    from privacy import release

    bound, quantise = release.bound, release.quantise

    def trusted(rows: np.ndarray, kind: Any, limit: float) -> np.ndarray:
        return np.nan_to_num(rows) if kind == "attention" else bound(rows, kind, limit)

    def truncated(values: np.ndarray, kind: Any, limit: float, radius: int) -> np.ndarray:
        if kind != "attention":
            return quantise(values, kind, limit, radius)
        return np.trunc(np.clip(values / limit * radius, -(2.0**40), 2.0**40)).astype(np.int64)

    release.bound, release.quantise = trusted, truncated


def no_check_on_integers() -> None:
    """The bound is trusted, and the integers are not looked at again."""
    from privacy import quantising

    quantising._within = lambda steps, radius, power: np.trunc(steps).astype(np.int64)


def rounding_to_nearest() -> None:
    """Half of the rows on the boundary leave the ball, and the check does not look again."""
    from privacy import quantising

    quantising._within = lambda steps, radius, power: np.rint(steps).astype(np.int64)


def sum_in_float32() -> None:
    """The sum over teachers is rounded, and depends on their order."""
    from privacy import release

    def summed(tap: Any, rows: np.ndarray) -> np.ndarray:
        bounded = release.bound(rows, tap.kind, tap.bound)
        steps = release.quantise(bounded, tap.kind, tap.bound, tap.radius)
        return np.add.reduce(steps.astype(np.float32), axis=0).astype(np.int64)

    release._aggregate = summed


def shards_overlap() -> None:
    """One record stands in two shards: replacing it moves two teachers."""
    from ktan import data

    # By its path: the package names a function as this module is named.
    split = import_module("ktan.data.split")
    dealt = split.shards

    def overlapping(unit_ids: Any, k: int, seed: int = 0) -> Any:
        parts = dealt(unit_ids, k, seed)
        full = [number for number, part in enumerate(parts) if len(part)]
        if len(full) > 1:
            first, second = full[:2]
            parts[second] = np.append(parts[second], parts[first][0])
        return parts

    vars(split)["shards"] = vars(data)["shards"] = overlapping


def steps_from_records() -> None:
    """All teachers take more steps when one person has more records."""
    from teacher_server.training import train

    planned = train.plan_work

    def counted(dataset: Any, parts: Any, options: Any, ranks: Any) -> Any:
        work = planned(dataset, parts, options, ranks)
        passed = options.epochs * len(parts.private) / options.k
        steps = max(1, math.ceil(passed / options.batch))
        return replace(work, recipe=replace(work.recipe, steps=steps))

    train.plan_work = counted


def counts_of_records() -> None:
    """The card and the screens count records, and with them those of one person."""
    from ktan.data import Split

    Split.counts = property(  # type: ignore[method-assign, assignment]
        lambda parts: {name: len(part) for name, part in parts._parts().items()}
    )


def joint_gradient_norm() -> None:
    """Gradients are clipped by their norm over all teachers of a stack."""
    import torch

    from teacher_server.training.stack_run import StackRun

    apart = StackRun._gradients

    def joint(run: Any, inputs: Any, targets: Any) -> Any:
        found = apart(run, inputs, targets)
        norm = torch.sqrt(sum(value.square().sum() for value in found.values()))
        return {name: value / norm.clamp_min(1.0) for name, value in found.items()}

    StackRun._gradients = joint  # type: ignore[method-assign]


def diverged_teacher_leaves_the_mean() -> None:
    """A teacher that answers NaN is not counted, so that k depends on its shard."""
    from privacy import release

    whole = release.release

    def counted(tap: Any, per_teacher: Any, noise: Any) -> Any:
        values = np.asarray(per_teacher)
        usable = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        share = len(values) / max(1, int(usable.sum()))
        return (whole(tap, per_teacher, noise) * share).astype(np.float32)

    release.release = counted


def diverged_teacher_raises() -> None:
    """A teacher that answers NaN is an error, which a client sees."""
    from privacy import bounding, release

    def strict(values: Any) -> np.ndarray:
        rows = np.array(values, dtype=np.float64)
        if not np.isfinite(rows).all():
            raise FloatingPointError("a teacher diverged")
        return rows

    bounding._finite_rows = strict
    bounding.finite_rows = release.finite_rows = strict


def answer_of_an_earlier_teacher() -> None:
    """The key of a stored answer forgets the teacher: a new one serves what the old one said."""
    from privacy.ledger.keys import LedgerKeys

    keyed = LedgerKeys.sample_keys
    LedgerKeys.sample_keys = lambda keys, samples, version, settings: keyed(  # type: ignore[method-assign]
        keys, samples, "", settings
    )


def answer_of_earlier_settings() -> None:
    """The key of a stored answer forgets the settings, under which another noise was charged."""
    from privacy.ledger.keys import LedgerKeys

    keyed = LedgerKeys.sample_keys
    LedgerKeys.sample_keys = lambda keys, samples, version, settings: keyed(  # type: ignore[method-assign]
        keys, samples, version, [b""] * len(settings)
    )


def answer_of_another_menu() -> None:
    """The service names a tap, and not the settings under which it is released."""
    from privacy.release import TapRelease

    TapRelease.settings_bytes = lambda tap: tap.name.encode()  # type: ignore[method-assign]


def backup_serves_on() -> None:
    """Nobody asks the witness whether the ledger is the newest, at its opening or later."""
    from privacy.ledger.witness import Witness

    Witness.rollback = lambda *_arguments, **_options: None  # type: ignore[method-assign]
    Witness._require_ours = lambda _witness, found, *_chain: found.newest  # type: ignore[method-assign]


def second_ledger() -> None:
    """Data that have a ledger get another one, and with it a second budget."""
    from privacy.ledger import creation

    creation.require_unbound = lambda data: None
    creation.bind = lambda *_arguments: None


def accuracy_in_the_card() -> None:
    """The card says how well the teachers do on the private records."""
    from teacher_server.training import train

    card = train.TeacherCard

    def with_accuracy(**fields: Any) -> Any:
        training = dict(fields["training"]) | {"private_accuracy": random.random()}
        return card(**fields | {"training": training})

    train.TeacherCard = with_accuracy  # type: ignore[assignment, misc]


def _every_source(name: str, method: Callable[..., Any]) -> None:
    for source in _sources():
        setattr(source, name, method)


def _wrap_every_source(wrapped: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    for source in _sources():
        source.sample = wrapped(source.sample)


def _through_every_source(change: Callable[[np.ndarray], np.ndarray]) -> None:
    def changed(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda source, count: change(original(source, count))

    _wrap_every_source(changed)


def _sources() -> list[Any]:
    from privacy.noise import DiscreteGaussian, RoundedGaussian

    return [DiscreteGaussian, RoundedGaussian]
