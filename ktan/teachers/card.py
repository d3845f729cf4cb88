"""The teacher's card: what anybody may know of a teacher.

Everything on it is public: N, k, options, public data, bounds from public data, and the privacy of
training. It holds nothing that was computed from private records: no figure of merit on them, no
class counts, no sizes of drawn batches, nothing derived from the weights. Weights are known by the
random `version` alone, because anything computed from them would be a release.
"""

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from ktan.card_file import CARD_FILE
from ktan.data import Normalisation
from ktan.errors import UserError
from ktan.networks import NetworkSpec
from ktan.taps import Tap

Mode = Literal["ensemble", "dp-sgd", "single"]
_FORMAT = 1
_DTYPES = {"uint8": torch.uint8, "float32": torch.float32}


@dataclass(frozen=True)
class CardTap:
    """One tap on a teacher's menu, with the L2 bound of one teacher's vector."""

    tap: Tap
    bound: float
    """B > 0, in the tap's own unit; 1 for probabilities, 0 for the raw taps of a `dp-sgd`
    teacher, which need none."""
    bound_source: str
    """How B was found, in words; always from public data."""

    def __post_init__(self) -> None:
        if not self.tap.shape:
            raise ValueError(f"tap {self.tap.name!r} has no shape yet; see Tap.with_shape")
        if not (math.isfinite(self.bound) and self.bound >= 0):
            raise ValueError(f"tap {self.tap.name!r}: bound {self.bound} is not >= 0 and finite")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "tap": self.tap.to_json(),
            "bound": self.bound,
            "bound_source": self.bound_source,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "CardTap":
        """The inverse of `to_json`."""
        return cls(
            Tap.from_json(content["tap"]), float(content["bound"]), str(content["bound_source"])
        )


@dataclass(frozen=True)
class TrainingPrivacy:
    """Under which guarantee a `dp-sgd` teacher was trained; of this one run on its own."""

    epsilon: float
    """At `delta`, under `adjacency`: the figure that counts."""
    delta: float
    adjacency: str
    """`replace-one`, the adjacency of the promise."""
    accountant: str
    """Who computed `epsilon`."""
    epsilon_add_remove: float
    """The same run under the weaker adjacency that Opacus and most papers state; to compare."""
    accountant_add_remove: str
    sample_rate: float
    """Probability with which each record enters a step (Poisson sampling)."""
    noise_multiplier: float
    """Standard deviation of the noise over `max_grad_norm`."""
    steps: int
    max_grad_norm: float
    """L2 bound of one record's gradient."""


@dataclass(frozen=True)
class TeacherCard:
    """Public facts of one trained teacher (k of them in an ensemble)."""

    mode: Mode
    teachers: int
    """k: how many answer together; 1 but for `ensemble`."""
    dataset: str
    """The data set's name."""
    dataset_id: str
    """What its ledger was opened for."""
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    """One sample: (C, H, W) or (d,)."""
    input_dtype: str
    """`uint8` for images, `float32` for tables."""
    normalisation: Normalisation
    """What a sample goes through on the teacher's host before the network."""
    network: NetworkSpec
    taps: tuple[CardTap, ...]
    ledger_id: str
    split: Mapping[str, Any]
    """The split's recipe and the number of units in each part, never of records."""
    unit: str
    """What the promise protects: a record, or a person with several."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """The options of training: public settings only."""
    training_privacy: TrainingPrivacy | None = None
    """Of a `dp-sgd` teacher; None for the other modes."""
    version: str = field(default_factory=lambda: secrets.token_hex(16))
    """Random 128-bit id, in hexadecimal."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode {self.mode!r} is none of {', '.join(get_args(Mode))}")
        if self.teachers < 1 or (self.teachers > 1 and self.mode != "ensemble"):
            raise ValueError(f"mode {self.mode} with {self.teachers} teachers")
        if self.input_dtype not in _DTYPES:
            raise ValueError(f"input dtype {self.input_dtype!r} is none of {', '.join(_DTYPES)}")
        if (self.training_privacy is None) == (self.mode == "dp-sgd"):
            raise ValueError("dp-sgd, and only dp-sgd, states the privacy of its training")
        if len({entry.tap.name for entry in self.taps}) != len(self.taps) or not self.taps:
            raise ValueError("a teacher needs taps, each under its own name")

    @property
    def torch_dtype(self) -> torch.dtype:
        """Of a sample as it comes over the wire."""
        return _DTYPES[self.input_dtype]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "format": _FORMAT,
            "version": self.version,
            "mode": self.mode,
            "teachers": self.teachers,
            "dataset": self.dataset,
            "dataset_id": self.dataset_id,
            "classes": list(self.classes),
            "input_shape": list(self.input_shape),
            "input_dtype": self.input_dtype,
            "normalisation": self.normalisation.to_json(),
            "network": self.network.to_json(),
            "taps": [entry.to_json() for entry in self.taps],
            "training": dict(self.training),
            "training_privacy": asdict(self.training_privacy) if self.training_privacy else None,
            "ledger_id": self.ledger_id,
            "split": dict(self.split),
            "unit": self.unit,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TeacherCard":
        """The inverse of `to_json`; raises KeyError, TypeError or ValueError for anything else."""
        if content["format"] != _FORMAT:
            raise ValueError(f"card format {content['format']!r}, but this program reads {_FORMAT}")
        privacy = content["training_privacy"]
        return cls(
            version=str(content["version"]),
            mode=content["mode"],
            teachers=int(content["teachers"]),
            dataset=str(content["dataset"]),
            dataset_id=str(content["dataset_id"]),
            classes=tuple(map(str, content["classes"])),
            input_shape=tuple(map(int, content["input_shape"])),
            input_dtype=str(content["input_dtype"]),
            normalisation=Normalisation.from_json(content["normalisation"]),
            network=NetworkSpec.from_json(content["network"]),
            taps=tuple(CardTap.from_json(entry) for entry in content["taps"]),
            training=dict(content["training"]),
            training_privacy=None if privacy is None else TrainingPrivacy(**privacy),
            ledger_id=str(content["ledger_id"]),
            split=dict(content["split"]),
            unit=str(content["unit"]),
        )

    @classmethod
    def read(cls, folder: Path) -> "TeacherCard":
        """The card in a teacher's folder. Raises UserError when there is none or it is damaged."""
        path = folder / CARD_FILE
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise UserError(
                f"{folder} holds no teacher ({CARD_FILE} is missing); `teacher-server train "
                "--out FOLDER` makes one"
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not a teacher's card: {error!r}") from error
