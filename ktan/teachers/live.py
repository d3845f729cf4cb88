"""A teacher in this process that answers every view of a sample as it is drawn.

What distillation on one's own data does, and what no service could afford: each augmented view is
asked anew, so that teacher and student see the same picture. Nothing is perturbed; who may see
such answers may see the teacher.

A teacher-to-student layer (TSL, `ktan.teachers.tsl`) takes the shape of the student that is named
to `read`, and is trained by `prepare`, once, before anything is answered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ktan.data import Normalisation
from ktan.errors import UserError
from ktan.memory_format import channels_last
from ktan.networks import NetworkSpec, NetworkStages, build, stages_of, stages_within
from ktan.networks.foreign import without_inplace
from ktan.precision import Precision, resolve_precision
from ktan.tap_reader import read_taps, tap_shapes
from ktan.taps import Tap
from ktan.teacher import AnswerTap
from ktan.teachers.answering import AnsweringNetwork
from ktan.teachers.card import TeacherCard
from ktan.teachers.folder import WEIGHTS_FILE, read_tensors
from ktan.teachers.tsl import TeacherToStudentLayer, student_shape
from ktan.teachers.tsl_training import LayerFile, LayerRecipe, Watch, Weights, train_layers

Draw = Literal["mean", "one"]


class LiveTeacher:
    """One network, or several of one architecture, in evaluation mode and without gradients.

    No more of them is run than the taps need, and nothing where there is none
    (`ktan.teachers.answering`).

    Of several, each step is answered by their mean (`draw` is `mean`), or by one that is drawn at
    random for that step (`one`; MEAL).
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        spec: NetworkSpec,
        normalise: Normalisation,
        taps: Sequence[Tap],
        *,
        device: torch.device | str = "cpu",
        precision: Precision = "auto",
        draw: Draw = "mean",
        seed: int = 0,
        stages: NetworkStages | None = None,
    ) -> None:
        """`taps`: what is answered; shapes are found by a dry run. `stages`: of networks of one's
        own, which `spec` cannot build again, and which are run as they stand, changes to their
        weights included. Raises UserError for a path that the networks do not have."""
        if draw not in get_args(Draw):
            raise UserError(f"draw is {draw!r}; it is one of {', '.join(get_args(Draw))}")
        self.spec = spec
        self.stages = stages or stages_of(spec)
        self._device = torch.device(device)
        self._networks = [
            network.to(self._device).to(memory_format=torch.channels_last).eval()
            for network in networks
        ]
        for network in self._networks:
            network.requires_grad_(False)
        self._normalise = normalise
        self._precision = precision
        self._own = stages is not None
        self._draw, self._seed = draw, seed
        self._taps: dict[str, Tap] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._layers: dict[str, list[Weights]] = {}
        self._answering: dict[int, AnsweringNetwork] = {}
        self.read(taps)

    @classmethod
    def load(
        cls,
        folder: Path,
        taps: Sequence[Tap] = (),
        *,
        device: torch.device,
        precision: Precision,
        draw: Draw = "mean",
    ) -> "LiveTeacher":
        """The k teachers of a teacher's folder, as they are: unbounded and not aligned."""
        card = TeacherCard.read(folder)
        weights = read_tensors(folder, WEIGHTS_FILE)
        networks = []
        for number in range(card.teachers):
            network = build(card.network)
            network.load_state_dict({name: value[number] for name, value in weights.items()})
            networks.append(network)
        return cls(
            networks, card.network, card.normalisation, taps,
            device=device, precision=precision, draw=draw,
        )  # fmt: skip

    @classmethod
    def around(cls, networks: Sequence[nn.Module], input_shape: tuple[int, ...]) -> "LiveTeacher":
        """Networks of one's own, which take samples as they come, in the precision around them."""
        stages, classes = stages_within(networks[0], input_shape)
        for network in networks:
            without_inplace(network)
        like = next(networks[0].parameters(), torch.empty(0))
        return cls(
            networks,
            NetworkSpec("own", input_shape, classes),
            Normalisation((0.0,), (1.0,)),
            (),
            device=like.device,
            precision="float32",
            stages=stages,
        )

    def read(self, taps: Sequence[Tap], student: NetworkSpec | None = None) -> None:
        """Answers these taps from now on; a TSL that names no shape puts out the student's.

        Raises UserError for such a TSL without a student.
        """
        paths = list(dict.fromkeys(path for tap in taps for path in tap.paths))
        self._shapes = tap_shapes(self._networks[0], self.spec.input_shape, paths) if paths else {}
        fitted = [_fitted(tap, student) for tap in taps]
        self._taps = {tap.name: tap.with_shape(self.spec.classes, self._shapes) for tap in fitted}
        self._forget()

    def prepare(
        self,
        samples: Tensor,
        labels: Tensor,
        recipe: LayerRecipe | None = None,
        *,
        folder: Path | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Trains the layers of those of its taps that are TSLs and have none yet.

        `samples` uint8 or float32 [n, ...] not normalised, `labels` int64 [n] (-1: the teacher's
        own opinion): the student's training data. `folder` keeps the layers: a later call with the
        same teachers, data and recipe finds them there. `watch` sees the steps of those that are
        trained.
        """
        recipe = recipe or LayerRecipe(precision=self._precision)
        for tap in self._taps.values():
            if tap.kind != "tsl" or tap.text in self._layers:
                continue
            kept = None
            if folder is not None:
                kept = LayerFile.of(folder, tap, self._networks, samples, labels, recipe)
            layers = None if kept is None else kept.read(self._device)
            if layers is None:
                readers = [read_taps(network, tap.paths) for network in self._networks]
                layers = train_layers(
                    readers, tap, self._shapes[str(tap.path)][0], self.spec.classes,
                    self._normalise, samples, labels, recipe, self._device, watch,
                )  # fmt: skip
                for reader in readers:
                    reader.close()
                if kept is not None:
                    kept.write(layers)
            self._layers[tap.text] = layers

    def to(self, device: torch.device) -> None:
        """Answers there from now on."""
        self._device = device
        for network in self._networks:
            network.to(device)
        self._forget()
        self._layers = {
            name: [{part: value.to(device) for part, value in layer.items()} for layer in layers]
            for name, layers in self._layers.items()
        }

    @property
    def networks(self) -> list[nn.Module]:
        """The teachers, frozen."""
        return list(self._networks)

    @property
    def taps(self) -> Mapping[str, AnswerTap]:
        """Tap name → what one answer of it is; no noise."""
        return {
            name: AnswerTap(
                name=name, kind=tap.kind, shape=tap.shape, temperature=tap.temperature or 1.0
            )
            for name, tap in self._taps.items()
        }

    def answer(self, samples: Tensor) -> dict[str, Tensor]:
        """See `Teacher.answer`: the mean of all, on the CPU."""
        found = self._mean(range(len(self._networks)), samples)
        return {name: value.cpu() for name, value in found.items()}

    def answer_step(self, samples: Tensor, step: int) -> dict[str, Tensor]:
        """Answers to augmented but not normalised samples [n, ...], on the device.

        Depends on nothing but samples, seed and step, so that a resumed run gets the same.
        """
        numbers = range(len(self._networks))
        if self._draw == "one" and len(numbers) > 1:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
            drawn = int(torch.randint(len(numbers), (1,), generator=generator))
            numbers = range(drawn, drawn + 1)
        return self._mean(numbers, samples)

    @torch.no_grad()
    def _mean(self, numbers: range, samples: Tensor) -> dict[str, Tensor]:
        if not self._taps:
            return {}
        normalised = channels_last(self._normalise(samples.to(self._device)))
        sums: dict[str, Tensor] = {}
        for number in numbers:
            logits, features = self._runner(number)(normalised)
            read = {path: feature.float() for path, feature in features.items()}
            for name, tap in self._taps.items():
                value = tap.read(logits.float(), read, self._layer(tap, number))
                sums[name] = value if name not in sums else sums[name] + value
        # Of several the mean; what came out of inference mode as it is, a loss could not keep.
        return {
            name: value / len(numbers) if len(numbers) > 1 else _plain(value)
            for name, value in sums.items()
        }

    def _runner(self, number: int) -> AnsweringNetwork:
        """Made ready when it is first asked."""
        if number not in self._answering:
            self._answering[number] = AnsweringNetwork(
                self._networks[number],
                self.spec.input_shape,
                list(self._shapes),
                logits=any(not tap.paths for tap in self._taps.values()),
                precision=self._precision
                if self._own
                else resolve_precision(self._device, self._precision),
                as_it_is=self._own,
            )
        return self._answering[number]

    def _forget(self) -> None:
        for runner in self._answering.values():
            runner.close()
        self._answering = {}

    def _layer(self, tap: Tap, number: int) -> TeacherToStudentLayer | None:
        if tap.kind != "tsl":
            return None
        if tap.text not in self._layers:
            raise UserError(
                f"tap {tap.text}: its layer is not trained yet; call LiveTeacher.prepare first"
            )
        return TeacherToStudentLayer(tap.shape, self._layers[tap.text][number])


def _plain(value: Tensor) -> Tensor:
    return value.clone() if value.is_inference() else value


def _fitted(tap: Tap, student: NetworkSpec | None) -> Tap:
    """A TSL without a shape in its student's."""
    if tap.kind != "tsl" or tap.shape:
        return tap
    if student is None:
        raise UserError(
            f"tap {tap.text}: a TSL puts out its student's shape; name the student to "
            "LiveTeacher.read, or the shape: tsl=PATH:64x8x8"
        )
    return replace(tap, shape=student_shape(student))
