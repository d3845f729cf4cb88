"""The two teachers that are served: a ResNet-20, and 50 small CNNs; untrained is as fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ktan.data import Normalisation
from ktan.networks import NetworkSpec, build
from ktan.tap_reader import tap_shapes
from ktan.taps import parse_taps
from ktan.teachers import CardTap, TeacherCard
from ktan.teachers.stack import new_states

SHAPE, CLASSES = (3, 32, 32), 10


@dataclass(frozen=True)
class Model:
    """k networks of one architecture."""

    name: str
    network: NetworkSpec
    teachers: int
    hint: str

    def weights(self) -> dict[str, Tensor]:
        """Name → [k, ...], the same each time."""
        return new_states(self.network, range(self.teachers))

    def card(self, ledger_id: str) -> TeacherCard:
        """Probabilities and a hint of 64 values, each bounded, noised and charged."""
        taps = parse_taps(["probabilities", f"hint={self.hint}"])
        shapes = tap_shapes(
            build(self.network), SHAPE, [path for tap in taps for path in tap.paths]
        )
        shaped = [tap.with_shape(CLASSES, shapes) for tap in taps]
        return TeacherCard(
            mode="ensemble" if self.teachers > 1 else "single",
            teachers=self.teachers,
            dataset="benchmark",
            dataset_id="benchmark/none",
            classes=tuple(map(str, range(CLASSES))),
            input_shape=SHAPE,
            input_dtype="uint8",
            normalisation=Normalisation((127.5,) * 3, (64.0,) * 3),
            network=self.network,
            taps=tuple(CardTap(tap, 1.0, "chosen") for tap in shaped),
            ledger_id=ledger_id,
            split={"recipe": {}, "counts": {}},
            unit="record",
        )


MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        Model("resnet20", NetworkSpec("resnet20", SHAPE, CLASSES), 1, "features"),
        Model("ensemble", NetworkSpec("cnn-small", SHAPE, CLASSES), 50, "features"),
    )
}
