"""An ordinary training loop for many students at once: one batch, one pass of the teacher, then a
step of each student by its own peer's loss.

First weights, batches, augmentation, optimiser and schedule are those of `ktan.trainer` for the
same seed, so that a peer's student and ours are pairs.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.peers.implementations import PEERS, describe
from benchmarks.peers.peer import Pair, Peer, Seen
from benchmarks.peers.public_code import PublicCode
from ktan.checkpoint import checkpoint_state, load_checkpoint, save_checkpoint
from ktan.data import Augment, AugmentName, Normalisation
from ktan.durable import write_durably
from ktan.errors import UserError
from ktan.evaluation import accuracy
from ktan.methods.batch import Batch
from ktan.networks import NetworkSpec, build
from ktan.optimisers import learning_rate
from ktan.precision import Precision, autocast
from ktan.schedule import StagePlan
from ktan.tap_reader import read_taps
from ktan.taps import Tap
from ktan.teachers.live import LiveTeacher
from ktan.training_data import BatchStream, TrainingData
from student_client.public_data import PublicData

CHECKPOINT, RESULT = "checkpoint.safetensors", "result.json"
LOGITS = "logits"
_Made = TypeVar("_Made", bound=nn.Module)


@dataclass(frozen=True)
class Recipe:
    """What all students of one seed share; a checkpoint goes on under the same one only."""

    network: str
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    augment: AugmentName
    precision: Precision
    initialisation: float
    """Share of the steps that a peer's first stage takes, where it has one."""
    seed: int
    steps: int | None = None
    """Instead of epochs: for a trial."""


class Trainee:
    """One student with its peer: what a checkpoint holds."""

    def __init__(
        self, name: str, peer: Peer, student: nn.Module, recipe: Recipe, steps: int, folder: Path
    ) -> None:
        self.name, self.peer, self.student = name, peer, student
        self.recipe, self.folder = recipe, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.plan = StagePlan(peer.stages, steps)
        groups = [
            {"params": list(student.parameters())},
            {"params": list(peer.parameters())},
        ]
        self.optimiser = torch.optim.SGD(
            [group for group in groups if group["params"]],
            lr=0.0, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay,
        )  # fmt: skip
        self.done, self.seconds = 0, 0.0
        self.total: Tensor | float = 0.0
        self.diverged: int | None = None
        self._reader = read_taps(student, peer.student_paths)

    def step(self, step: int, batch: Batch, teacher: Seen) -> None:
        """One step; nothing waits for the device. Ends it where a peer's algebra breaks down."""
        try:
            self._step(step, batch, teacher)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            self.diverged = step

    def _step(self, step: int, batch: Batch, teacher: Seen) -> None:
        begun = time.perf_counter()
        device = teacher.logits.device
        with autocast(device, self.recipe.precision):
            logits, features = self._reader(batch.samples)
        place = self.plan.at(step)
        loss = self.peer.loss(place, _seen(logits, features), teacher, batch.all_labels)
        rate = learning_rate(self.recipe.learning_rate, place.schedule_step, place.schedule_steps)
        for group, relative in zip(
            self.optimiser.param_groups, (1.0, self.peer.rate), strict=False
        ):
            group["lr"] = rate * relative
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.total = self.total + loss.detach()
        self.done = step + 1
        self.seconds += time.perf_counter() - begun

    def save(self) -> None:
        """Writes the checkpoint; a loss that is no number ends the training."""
        total = float(self.total)
        self.total = 0.0
        if total != total or total in (float("inf"), float("-inf")):
            self.diverged = self.done
        state = {
            "step": self.done,
            "seconds": self.seconds,
            "diverged": self.diverged,
            "recipe": asdict(self.recipe),
        }
        save_checkpoint(
            self.folder / CHECKPOINT, self._modules, {"sgd": self.optimiser}, state, self._device
        )

    def resume(self) -> None:
        """Takes up the checkpoint, where there is one. Raises UserError for another recipe's."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        if checkpoint_state(path)["recipe"] != asdict(self.recipe):
            raise UserError(f"{path} is of another recipe; give the same options, or another --out")
        state = load_checkpoint(path, self._modules, {"sgd": self.optimiser}, self._device)
        self.done, self.seconds = int(state["step"]), float(state["seconds"])
        self.diverged = state["diverged"]

    def finish(self, public: PublicData) -> dict[str, Any]:
        """Measures on the test part and writes the result."""
        found = None
        if self.diverged is None:
            found = accuracy(
                self.student, public.test, public.test_labels,
                normalise=public.normalisation, precision=self.recipe.precision,
            )  # fmt: skip
        result = {
            "method": self.name,
            **describe(self.peer),
            "accuracy": found,
            "diverged_at_step": self.diverged,
            "steps": self.done,
            "seconds": round(self.seconds, 1),
            "recipe": asdict(self.recipe),
        }
        write_durably(self.folder / RESULT, (json.dumps(result, indent=2) + "\n").encode())
        return result

    @property
    def _modules(self) -> dict[str, nn.Module]:
        return {"student": self.student, "peer": self.peer}

    @property
    def _device(self) -> torch.device:
        return next(self.student.parameters()).device


def run(
    names: Sequence[str],
    recipe: Recipe,
    public: PublicData,
    teacher: nn.Module,
    teacher_spec: NetworkSpec,
    teacher_normalises: Normalisation,
    code: PublicCode,
    out: Path,
    device: torch.device,
    shares: Mapping[str, float] | None = None,
) -> Iterator[dict[str, Any]]:
    """Trains these peers' students of one seed together; yields each one's result.

    Finished ones are read back. Checkpoints are written after each epoch. `shares`: method →
    its own `initialisation`.
    """
    recipes = {
        name: replace(recipe, initialisation=(shares or {}).get(name, recipe.initialisation))
        for name in names
    }
    left = []
    for name in names:
        path = out / f"{name}-{recipe.seed}" / RESULT
        if path.exists():
            yield _read_result(path, recipes[name])
        else:
            left.append(name)
    if not left:
        return
    spec = NetworkSpec(recipe.network, public.input_shape, len(public.classes))
    pair = Pair.of(spec, teacher_spec)
    peers: dict[str, Peer] = {
        name: _seeded(partial(PEERS[name], pair, code, recipes[name].initialisation), recipe)
        for name in left
    }
    paths = list(dict.fromkeys(path for peer in peers.values() for path in peer.teacher_paths))
    live = LiveTeacher(
        [teacher], teacher_spec, teacher_normalises,
        [Tap(LOGITS, "logits"), *(Tap(path, "hint", path, whole_map=True) for path in paths)],
        device=device, precision=recipe.precision,
    )  # fmt: skip
    stream = BatchStream(
        TrainingData(
            public.labelled[:0], public.labels[:0], public.labelled, {}, public.labels, live
        ),
        labelled_batch=1, answered_batch=recipe.batch, seed=recipe.seed, device=device,
        normalise=public.normalisation, augment=Augment(recipe.augment),
    )  # fmt: skip
    steps = recipe.steps or recipe.epochs * stream.steps_per_epoch
    trainees = []
    for name, peer in peers.items():
        student = _seeded(partial(build, spec), recipe)
        trainee = Trainee(
            name,
            peer.to(device).train(),
            student.to(device).to(memory_format=torch.channels_last).train(),
            recipes[name],
            steps,
            out / f"{name}-{recipe.seed}",
        )
        trainee.resume()
        trainees.append(trainee)
    left_off = [trainee.done for trainee in trainees if trainee.diverged is None]
    for step in range(min(left_off, default=steps), steps):
        active = [t for t in trainees if t.done <= step and t.diverged is None]
        if not active:
            break
        batch = stream.batch(step)
        seen = _seen(batch.answers[LOGITS], {path: batch.answers[path] for path in paths})
        for trainee in active:
            trainee.step(step, batch, seen)
        if (step + 1) % stream.steps_per_epoch == 0 or step + 1 == steps:
            for trainee in active:
                trainee.save()
            print(f"seed {recipe.seed}: step {step + 1} of {steps}", flush=True)
    for trainee in trainees:
        yield trainee.finish(public)


def _seeded(make: Callable[[], _Made], recipe: Recipe) -> _Made:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return make()


def _seen(logits: Tensor, features: dict[str, Tensor]) -> Seen:
    return Seen(
        logits.float(), {path: value.float().contiguous() for path, value in features.items()}
    )


def _read_result(path: Path, recipe: Recipe) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if result["recipe"] != asdict(recipe):
        raise UserError(f"{path} is of another recipe; give the same options, or another --out")
    return result
