"""One student in training: its optimisers, its random state, its curves, and its checkpoint."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from ktan.checkpoint import checkpoint_state, load_checkpoint, save_checkpoint
from ktan.errors import UserError
from ktan.history import History
from ktan.methods.batch import Batch, View
from ktan.methods.objective import STUDENT, Objective
from ktan.optimisers import learning_rate, make_optimiser
from ktan.precision import Precision, autocast, resolve_precision
from ktan.random_state import RandomState
from ktan.scalars import Scalars
from ktan.schedule import Place
from ktan.student_pass import CompiledPass
from ktan.tap_reader import TapReader, read_taps
from ktan.trainer_options import TrainerOptions

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True, eq=False)
class Lesson:
    """One student to be trained, and where its files go."""

    student: nn.Module
    objective: Objective
    folder: Path | None = None
    """Gets checkpoint, history and TensorBoard's scalars; nothing is written when None."""
    validate: Callable[[nn.Module], float] | None = None
    """Gives an accuracy on validation samples, called at each checkpoint."""
    note: str = ""
    """Stands at the progress bar: the ε spent, say."""


class Diverged(UserError):
    """A student whose loss is no longer finite; those trained with it may go on without it."""

    def __init__(self, message: str, lesson: Lesson, step: int) -> None:
        super().__init__(message)
        self.lesson = lesson
        self.step = step


class Pupil:
    """The state of one training: what a checkpoint holds.

    Has a random state of its own, so that students trained together do not see one another.
    """

    def __init__(
        self,
        lesson: Lesson,
        options: TrainerOptions,
        device: torch.device,
        *,
        resume: bool,
        graphs: bool = False,
    ) -> None:
        """`graphs`: compiled passes may be CUDA graphs.

        Raises UserError when a checkpoint to resume from is missing or of another run, and where a
        student is to be compiled and cannot.
        """
        self.lesson, self.options, self.device = lesson, options, device
        self.student = lesson.student.to(device).to(memory_format=torch.channels_last).train()
        self.objective = lesson.objective.to(device).train()
        self.history = History()
        self.optimisers = {
            player: make_optimiser(
                self._parameters(player),
                options.optimiser if player == STUDENT else "adversary",
                options.weight_decay if player == STUDENT else 0.0,
            )
            for player in self.objective.players
        }
        self._precision = resolve_precision(device, options.precision)
        if resume and self._path is not None and options.precision == "auto":
            # What it began in, on another device too, or its weights would be others.
            self._precision = _precision_of(self._path, self._precision)
        scaled = self._precision == "fp16"
        # One each: a player whose gradients overflow does not hold up the others.
        self._scalers = {
            player: GradScaler(device.type, enabled=scaled) for player in self.optimisers
        }
        self._view: View | None = None
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._images = 0
        self._since = time.perf_counter()
        self._random = RandomState(options.seed, device)
        self.done = 0
        if resume and self._path is not None:
            self._load(self._path)
        paths = self.objective.paths
        # Behind all that may refuse: it puts hooks into the caller's student.
        self._pass: CompiledPass | TapReader = (
            CompiledPass(self.student, paths, graphs=graphs)
            if options.compile
            else read_taps(self.student, paths)
        )
        self._scalars = None if lesson.folder is None else Scalars(lesson.folder, self.done)

    def step(self, place: Place, batch: Batch) -> None:
        """One forward pass and a turn of each player; nothing waits for the device."""
        with self._random.within():
            with autocast(self.device, self._precision):
                view = self.objective.view(self._pass, batch)
            for player, optimiser in self.optimisers.items():
                self._turn(player, optimiser, view, batch, place)
        self._view = view
        self._images += len(batch)

    def row(self, done: int, batch: Batch) -> dict[str, float]:
        """Means since the last row, and the last batch's measures; waits for the device.

        Raises Diverged for a loss that is not finite.
        """
        assert self._view is not None
        values = {name: total / count for name, (total, count) in self._sums.items()}
        labels = batch.all_labels
        known = labels >= 0
        hits = (self._view.known_logits.detach().argmax(dim=1) == labels) & known
        values["training_accuracy"] = hits.sum() / known.sum().clamp(min=1)
        values.update(self._measures(batch))
        row = {name: float(value) for name, value in values.items()}
        broken = [name for name, value in row.items() if value - value != 0]
        if broken:
            raise Diverged(
                f"{broken[0]!r} is no longer finite at step {done}; lower --learning-rate "
                "or the term's weight",
                self.lesson,
                done,
            )
        self.history.add(done, row)
        elapsed = time.perf_counter() - self._since
        row["images_per_second"] = self._images / max(elapsed, 1e-9)
        self._sums, self._images, self._since = {}, 0, time.perf_counter()
        if self._scalars is not None:
            self._scalars.write(done, row)
        return row

    def validate(self, done: int) -> None:
        """Adds a point to the validation curve, where there is one."""
        if self.lesson.validate is not None:
            self.student.eval()
            self.history.add(done, {"validation_accuracy": self.lesson.validate(self.student)})
            self.student.train()

    def save(self, done: int) -> None:
        """Writes checkpoint and history, where there is a folder."""
        self.done = done
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        history = self.history.to_json()
        scales = {name: scaler.state_dict() for name, scaler in self._scalers.items()}
        state = {
            "step": done,
            "options": asdict(self.options),
            "history": history,
            "scales": scales,
            "precision": self._precision,
        }
        with self._random.within():
            save_checkpoint(self._path, self._modules, self.optimisers, state, self.device)
        (self._path.parent / "history.json").write_text(json.dumps(history) + "\n")

    def close(self) -> None:
        """Closes its files, and takes its hooks off the student."""
        self._pass.close()
        if self._scalars is not None:
            self._scalars.close()

    def _turn(
        self,
        player: str,
        optimiser: torch.optim.Optimizer,
        view: View,
        batch: Batch,
        place: Place,
    ) -> None:
        options = self.options
        peak = options.learning_rate if player == STUDENT else options.opponent_learning_rate
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(peak, place.schedule_step, place.schedule_steps)
        with self.objective.turn_of(player):
            losses = self.objective.losses(player, view, batch, place.stage)
            if not losses:
                return
            optimiser.zero_grad(set_to_none=True)
            scaler = self._scalers[player]
            scaled = {name: scaler.scale(loss) for name, loss in losses.items()}
            self.objective.backward(scaled, self._parameters(player))
        # A fused step unscales, and rests where a gradient overflowed, without asking the device.
        scaler.step(optimiser)
        scaler.update()
        for name, loss in losses.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + loss.detach(), count + 1)

    def _parameters(self, player: str) -> list[nn.Parameter]:
        own = list(self.student.parameters()) if player == STUDENT else []
        return [*own, *self.objective.learnables(player)]

    def _measures(self, batch: Batch) -> dict[str, Tensor]:
        """Looking changes nothing: neither random state nor buffers, so that runs stay equal."""
        assert self._view is not None
        self.objective.eval()
        with self._random.looking():
            measured = self.objective.measures(self._view, batch)
        self.objective.train()
        return measured

    @property
    def _path(self) -> Path | None:
        return None if self.lesson.folder is None else self.lesson.folder / CHECKPOINT

    @property
    def _modules(self) -> dict[str, nn.Module]:
        return {"student": self.student, "objective": self.objective}

    def _load(self, path: Path) -> None:
        _check_options(path, self.options)
        with self._random.within():
            state = load_checkpoint(path, self._modules, self.optimisers, self.device)
        for player, scale in state.get("scales", {}).items():
            self._scalers[player].load_state_dict(scale)
        self.history = History.from_json(state["history"])
        self.done = int(state["step"])


def postfix(row: Mapping[str, float], note: str) -> str:
    """Note, speed, then the terms, the student's first: what 80 columns cut off matters least."""
    shown = [name for name in row if not name.endswith("accuracy") and name != "images_per_second"]
    # Players are listed as they move, the student last.
    terms = [f"{name} {row[name]:.2g}" for name in reversed(shown)]
    return " ".join([*([note] if note else []), f"{row['images_per_second']:.0f} images/s", *terms])


def _precision_of(path: Path, here: Precision) -> Precision:
    """What a checkpoint's steps were computed in; `here`: what `auto` is on this device.

    Raises UserError where there is no checkpoint.
    """
    state = checkpoint_state(path)
    recorded: Precision | None = state.get("precision")
    if recorded is not None:
        return recorded
    # An earlier version recorded no precision, and scales of fp16 alone.
    if any(state.get("scales", {}).values()):
        return "fp16"
    return "float32" if here == "fp16" else here


def _check_options(path: Path, options: TrainerOptions) -> None:
    """A checkpoint goes on under the options it was made with, or the weights would differ."""
    # What is not recorded, an earlier version did not have: it did what the default does.
    made: dict[str, Any] = asdict(TrainerOptions()) | checkpoint_state(path)["options"]
    # Where and how often, not what: these may change.
    free = {"device", "checkpoint_every", "data_on"}
    for name, value in asdict(options).items():
        if name not in free and made.get(name) != value:
            raise UserError(
                f"{path} was made with --{name.replace('_', '-')} {made.get(name)}, now {value}; "
                "resume with the same options, or train into another folder"
            )
