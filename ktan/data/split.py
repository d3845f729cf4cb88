"""The split of a data set into private and public parts, and of the private part into shards.

Both depend on unit ids and a seed, and on nothing else: the promise replaces the content behind
one fixed unit id, so no label, no pixel and no number of records may move a unit from one part
or shard to another.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ktan.data.dataset import Dataset, UnitIds
from ktan.data.names import ids_at
from ktan.data.unit_hash import unit_hash
from ktan.data.units import distinct_units
from ktan.errors import UserError

Indices = np.ndarray
"""int64 [n], ascending positions in the data set."""


@dataclass(frozen=True)
class SplitRecipe:
    """How records are divided; the same recipe on the same ids gives the same split.

    Numbers count units, which are records unless the data set names other units.
    """

    seed: int = 0
    """Seed of the split and of the shards."""
    by: Literal["hash", "official"] = "hash"
    """hash: every part is drawn by a keyed hash of the unit ids. official: the training part is
    private, the public parts are the first of the official test part, the test its last."""
    private: int | None = None
    """Units of the private part; all that remain when not given."""
    labelled: int | None = None
    """Public units whose labels the student sees; 100 of a published data set when not given."""
    unlabelled: int | None = None
    """Public units without labels, from which queries are chosen; 6,000 of a published data set
    when not given."""
    test: int | None = None
    """Public units kept for evaluation; 5,900 of a published data set when not given."""

    def resolved(self, dataset: Dataset) -> "SplitRecipe":
        """The same recipe with every public number filled in.

        Raises UserError when one is missing and the data set is somebody's own: a default would
        make private records public without anybody having said so.
        """
        asked = {name: getattr(self, name) for name in _PUBLISHED}
        missing = [name for name, number in asked.items() if number is None]
        if missing and not dataset.published:
            raise UserError(
                "say how many units are public: --labelled, --unlabelled and --test; the public "
                f"units are not protected (0 each where the private data stay apart). "
                f"{dataset.name} lacks {', '.join(f'--{name}' for name in missing)}"
            )
        filled: dict[str, Any] = {name: _PUBLISHED[name] for name in missing}
        return replace(self, **filled)


_PUBLISHED = {"labelled": 100, "unlabelled": 6000, "test": 5900}
"""Public units of a published data set: of glyphs they leave 60,000 private ones."""


@dataclass(frozen=True, eq=False)
class Split:
    """Four disjoint lists of positions in one data set."""

    recipe: SplitRecipe
    """As resolved for the data set, so that a default and the same number said are equal."""
    dataset_id: str
    unit_ids: UnitIds
    """Of all records of the data set."""
    private: Indices
    labelled: Indices
    unlabelled: Indices
    test: Indices

    @property
    def counts(self) -> dict[str, int]:
        """Units in each part.

        Public: how many records stand behind a unit is its content, and is not counted.
        """
        return {
            name: len(distinct_units(ids_at(self.unit_ids, part))[0])
            for name, part in self._parts().items()
        }

    def to_json(self) -> dict[str, Any]:
        """The recipe, the counts and a SHA-256 of each list of positions.

        Positions tell of the number of records behind a unit: where units are private, the
        digests stay on the secure host. The recipe and the counts may be shown.
        """
        return {
            "dataset": self.dataset_id,
            "recipe": asdict(self.recipe),
            "counts": self.counts,
            "sha256": {
                name: hashlib.sha256(part.astype("<i8").tobytes()).hexdigest()
                for name, part in self._parts().items()
            },
        }

    def record(self, path: Path) -> None:
        """Writes what `check` compares with."""
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    def check(self, path: Path) -> None:
        """Raises UserError when `path` was recorded for another split."""
        try:
            recorded = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"no recorded split at {path}") from error
        except ValueError as error:
            raise UserError(f"{path} is not a recorded split: {error}") from error
        current = self.to_json()
        # They follow from the rest, and earlier versions counted records.
        del current["counts"]
        changed = [key for key in current if recorded.get(key) != current[key]]
        if changed:
            raise UserError(
                f"the split differs from the one recorded at {path} ({', '.join(changed)}): "
                "private records could become public; give the recorded seed, numbers and data"
            )

    def _parts(self) -> dict[str, Indices]:
        return {
            "private": self.private,
            "labelled": self.labelled,
            "unlabelled": self.unlabelled,
            "test": self.test,
        }


class _Public(NamedTuple):
    labelled: int
    unlabelled: int
    test: int

    @property
    def total(self) -> int:
        return sum(self)


def split(dataset: Dataset, recipe: SplitRecipe) -> Split:
    """Divides `dataset` by `recipe`; all records of a unit fall into the same part.

    Raises UserError when a public number for one's own data is missing, when there are too few
    units, when a unit stands on both sides of an official split, or when a public part that needs
    labels finds too few.
    """
    for name in ("private", "labelled", "unlabelled", "test"):
        asked = getattr(recipe, name)
        if asked is not None and asked < 0:
            raise UserError(f"--{name} is {asked}; it cannot be negative")
    recipe = recipe.resolved(dataset)
    public = _Public(*(getattr(recipe, name) for name in _PUBLISHED))
    units, inverse = distinct_units(dataset.unit_ids)
    hashes = unit_hash(ids_at(dataset.unit_ids, units), f"split {recipe.seed}")
    order = np.argsort(hashes, kind="stable")
    if recipe.by == "official":
        private, parts = _official(dataset, recipe.private, public, inverse, order)
    elif recipe.by == "hash":
        private, parts = _hashed(dataset, recipe.private, public, inverse, order)
    else:
        raise UserError(f"--by is {recipe.by!r}; it is hash or official")
    records = [_records_of(chosen, inverse, len(units)) for chosen in (private, *parts)]
    return Split(recipe, dataset.id, dataset.unit_ids, *records)


def shards(unit_ids: UnitIds, k: int, seed: int = 0) -> list[Indices]:
    """Deals the records with these ids to `k` disjoint shards, whole units at a time.

    Each shard gets the same number of units (one more for some), by keyed hash of their ids:
    were records counted instead, one unit's content would move another unit's records. With fewer
    units than shards some shards are empty; they still count.
    Returns `k` ascending lists of positions in `unit_ids`.
    """
    if k < 1:
        raise UserError(f"--teachers is {k}; at least one is needed")
    units, inverse = distinct_units(unit_ids)
    order = np.argsort(unit_hash(ids_at(unit_ids, units), f"shards {seed}"), kind="stable")
    owner = np.empty(len(units), dtype=np.int64)
    owner[order] = np.arange(len(units)) % k
    shard_of_record = owner[inverse]
    by_shard = np.argsort(shard_of_record, kind="stable")
    ends = np.cumsum(np.bincount(shard_of_record, minlength=k))[:-1]
    return [part.astype(np.int64) for part in np.split(by_shard, ends)]


def _hashed(
    dataset: Dataset,
    private_units: int | None,
    asked: _Public,
    inverse: np.ndarray,
    order: np.ndarray,
) -> tuple[np.ndarray, list[np.ndarray]]:
    public = asked.total
    wanted = public + (private_units or 0)
    if wanted > len(order):
        raise UserError(
            f"the split asks for {wanted} units (private {private_units or 0}, labelled "
            f"{asked.labelled}, unlabelled {asked.unlabelled}, test {asked.test}), but "
            f"{dataset.name} has {len(order)}; lower --private, --labelled, --unlabelled or --test"
        )
    private = order[public:] if private_units is None else order[public:wanted]
    # Who is public is settled by ids alone; only then may public labels be looked at.
    pool = order[:public]
    with_labels = _fully_labelled(dataset, inverse, len(order))[pool]
    needed = asked.labelled + asked.test
    if int(with_labels.sum()) < needed:
        raise UserError(
            f"--labelled and --test need {needed} public units with labels, but only "
            f"{int(with_labels.sum())} of {public} have some; lower them or raise --unlabelled"
        )
    places = np.flatnonzero(with_labels)
    chosen = np.zeros(public, dtype=bool)
    chosen[places[:needed]] = True
    labelled, test = pool[places[: asked.labelled]], pool[places[asked.labelled : needed]]
    return private, [labelled, pool[~chosen], test]


def _official(
    dataset: Dataset,
    private_units: int | None,
    asked: _Public,
    inverse: np.ndarray,
    order: np.ndarray,
) -> tuple[np.ndarray, list[np.ndarray]]:
    holdout = dataset.holdout.numpy()
    if not holdout.any():
        raise UserError(f"{dataset.name} has no official test part; use --by hash")
    public_units, first = np.unique(inverse[holdout], return_index=True)
    training_units = np.unique(inverse[~holdout])
    both = len(np.intersect1d(public_units, training_units))
    if both:
        raise UserError(
            f"{both} units of {dataset.name} have records in the training and in the test part; "
            "an official split would make them public: use --by hash"
        )
    in_file_order = public_units[np.argsort(first)]
    wanted = asked.total
    if wanted > len(in_file_order):
        raise UserError(
            f"--labelled {asked.labelled}, --unlabelled {asked.unlabelled} and --test "
            f"{asked.test} ask for {wanted} units, but the official test part of {dataset.name} "
            f"has {len(in_file_order)}"
        )
    private = order[np.isin(order, training_units)]
    if private_units is not None:
        if private_units > len(private):
            raise UserError(
                f"--private asks for {private_units} units, but the training part of "
                f"{dataset.name} has {len(private)}"
            )
        private = private[:private_units]
    test = in_file_order[len(in_file_order) - asked.test :]
    labelled = in_file_order[: asked.labelled]
    unlabelled = in_file_order[asked.labelled : asked.labelled + asked.unlabelled]
    with_labels = _fully_labelled(dataset, inverse, len(order))
    missing = int((~with_labels[labelled]).sum() + (~with_labels[test]).sum())
    if missing:
        raise UserError(
            f"{missing} units of the labelled and test parts have records without a label; "
            "use --by hash"
        )
    return private, [labelled, unlabelled, test]


def _fully_labelled(dataset: Dataset, inverse: np.ndarray, units: int) -> np.ndarray:
    """bool [units]: whether all records of a unit have a label."""
    missing = np.bincount(inverse, weights=dataset.labels.numpy() < 0, minlength=units)
    labelled: np.ndarray = missing == 0
    return labelled


def _records_of(units: np.ndarray, inverse: np.ndarray, count: int) -> Indices:
    member = np.zeros(count, dtype=bool)
    member[units] = True
    return np.flatnonzero(member[inverse]).astype(np.int64)
