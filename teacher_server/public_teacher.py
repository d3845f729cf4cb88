"""What is public of a teacher, without its networks: what a menu and a service are made of.

Read from the card, and free of torch: the service, its rehearsal and an auditor's copy of a card
need no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from privacy.accounting import Kind


@dataclass(frozen=True)
class PublicTap:
    """One tap on a teacher's card.

    bound: B > 0, the L2 bound of one teacher's vector; 1 for probabilities, 0 where nothing is
    bounded (`dp-sgd`). shape: of one sample's answer. temperature: of probabilities.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    bound: float
    temperature: float | None = None


@dataclass(frozen=True)
class PublicTeacher:
    """k teachers, as `Describe` speaks of them. mean and std normalise a sample's values."""

    version: str
    mode: str
    teachers: int
    dataset: str
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    input_dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    taps: tuple[PublicTap, ...]

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> PublicTeacher:
        """From a card's JSON values. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            version=str(card["version"]),
            mode=str(card["mode"]),
            teachers=int(card["teachers"]),
            dataset=str(card["dataset"]),
            classes=tuple(map(str, card["classes"])),
            input_shape=tuple(map(int, card["input_shape"])),
            input_dtype=str(card["input_dtype"]),
            mean=tuple(map(float, card["normalisation"]["mean"])),
            std=tuple(map(float, card["normalisation"]["std"])),
            taps=tuple(
                PublicTap(
                    name=str(entry["tap"]["name"]),
                    kind=entry["tap"]["kind"],
                    shape=tuple(map(int, entry["tap"]["shape"])),
                    bound=float(entry["bound"]),
                    temperature=entry["tap"]["temperature"],
                )
                for entry in card["taps"]
            ),
        )
