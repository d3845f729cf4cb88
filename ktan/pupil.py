"""One student in training: its optimisers, its random state, its curves, and its checkpoint."""

import json
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from ktan.batch_norm import normalise_together
from ktan.checkpoint import load_checkpoint, save_checkpoint
from ktan.data_parts import mix
from ktan.errors import UserError
from ktan.history import History
from ktan.methods.batch import Batch, View
from ktan.methods.objective import STUDENT, Objective
from ktan.optimisers import learning_rate, make_optimiser
from ktan.parallel import ONE, Group
from ktan.precision import Precision, autocast, resolve_precision
from ktan.random_state import RandomState
from ktan.resuming import check_options, precision_of, require_shareable
from ktan.scalars import Scalars
from ktan.schedule import Place
from ktan.sharding import is_spread, spread, whole
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
        group: Group = ONE,
    ) -> None:
        """`graphs`: compiled passes may be CUDA graphs. `group`: the processes that share each
        step; the first one writes.

        Raises UserError when a checkpoint to resume from is missing or of another run, and where a
        student is to be compiled or spread and cannot.
        """
        require_shareable(lesson.objective, options, group)
        self.lesson, self.options, self.device = lesson, options, device
        self._group = group
        self.objective = lesson.objective.to(device).train()
        self.objective.group = group
        group.from_leader([*self.objective.parameters(), *self.objective.buffers()])
        self._precision = resolve_precision(device, options.precision)
        self.student = self._placed(lesson.student).train()
        normalise_together(self.objective, group, device)
        self.history = History()
        self.optimisers = {
            player: make_optimiser(
                self._parameters(player),
                options.optimiser if player == STUDENT else "adversary",
                options.weight_decay if player == STUDENT else 0.0,
            )
            for player in self.objective.players
        }
        if resume and self._path is not None and options.precision == "auto":
            # What it began in, on another device too, or its weights would be others.
            self._precision = precision_of(self._path, self._precision)
        scaled = self._precision == "fp16"
        # One each: a player whose gradients overflow does not hold up the others.
        self._scalers = {
            player: GradScaler(device.type, enabled=scaled) for player in self.optimisers
        }
        self._view: View | None = None
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._images = 0
        self._since = time.perf_counter()
        # Of its own samples each draws noise of its own.
        rank = group.ranks.rank
        self._random = RandomState(mix(options.seed, 4, rank) if rank else options.seed, device)
        self.done = 0
        if resume and self._path is not None:
            self._load(self._path)
        group.require_same([self.done, get_args(Precision).index(self._precision)], "checkpoint")
        paths = self.objective.paths
        # Behind all that may refuse: it puts hooks into the caller's student.
        self._pass: CompiledPass | TapReader = (
            CompiledPass(self.student, paths, graphs=graphs)
            if options.compile
            else read_taps(self.student, paths)
        )
        writes = lesson.folder is not None and group.leads
        self._scalars = Scalars(lesson.folder, self.done) if lesson.folder and writes else None

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
        figures = torch.stack([torch.as_tensor(value).float() for value in values.values()])
        self._group.average([figures])
        row = dict(zip(values, figures.tolist(), strict=True))
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
        row["images_per_second"] = self._images * self._group.count / max(elapsed, 1e-9)
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
        if self._group.leads:
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
            save_checkpoint(
                self._path, self._modules, self.optimisers, state, self.device, self._group
            )
        if self._group.leads:
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
            parameters = self._parameters(player)
            self.objective.backward(scaled, parameters)
            # What is spread torch has averaged on the way.
            self._group.average(
                [p.grad for p in parameters if p.grad is not None and not is_spread(p.grad)]
            )
        # A fused step unscales, and rests where a gradient overflowed, without asking the device.
        scaler.step(optimiser)
        scaler.update()
        for name, loss in losses.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + loss.detach(), count + 1)

    def whole_student(self) -> nn.Module:
        """The lesson's student as it stands; every process asks, where there are several."""
        if self._group.count > 1:
            values = {name: whole(value) for name, value in self.student.state_dict().items()}
            self.lesson.student.load_state_dict(values)
            self.lesson.student.to(self.device)
        return self.lesson.student

    def _placed(self, student: nn.Module) -> nn.Module:
        """On the device. Where several processes train it a copy, as rank 0 has it, which is theirs
        to change; spread over them where the options say so."""
        if self._group.count == 1:
            return student.to(self.device).to(memory_format=torch.channels_last)
        # Spread, it comes to a GPU in parts.
        placed = deepcopy(student).to("cpu" if self.options.shard else self.device)
        self._group.from_leader([*placed.parameters(), *placed.buffers()])
        normalise_together(placed, self._group, self.device)
        if not self.options.shard:
            return placed.to(memory_format=torch.channels_last)
        # In its own layout: torch spreads no other.
        spread(placed, self._group, self.device)
        return placed.to(self.device)

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
        check_options(path, self.options)
        with self._random.within():
            state = load_checkpoint(path, self._modules, self.optimisers, self.device, self._group)
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
