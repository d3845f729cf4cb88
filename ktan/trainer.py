"""The one training loop: drives any objective, any number of optimisers, in alternation.

A step is one forward pass of the student, then a turn for each of the objective's players, the
student last. The loop knows no method by name, and no teacher: answers are data.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ktan.checkpoint import checkpoint_state, load_checkpoint, save_checkpoint
from ktan.data import Augment, AugmentName, Normalisation
from ktan.errors import UserError
from ktan.history import History
from ktan.interruption import Interruption
from ktan.methods.method import STUDENT, Batch, Objective, View
from ktan.optimisers import OptimiserName, learning_rate, make_optimiser
from ktan.precision import Precision, autocast, resolve_device
from ktan.training_data import BatchStream, TrainingData

CHECKPOINT = "checkpoint.safetensors"
_HISTORY_ROWS = 100
_CHECKPOINTS = 10


@dataclass(frozen=True)
class TrainerOptions:
    """How a student is trained, whatever the method. Defaults measured in docs/methods.md."""

    epochs: int = 60
    """Passes over the answered samples (over the labelled ones where none is answered)."""
    steps: int | None = None
    """Steps of the student's optimiser, instead of epochs."""
    labelled_batch: int = 50
    """Labelled samples a step."""
    answered_batch: int = 100
    """Answered samples a step."""
    optimiser: OptimiserName = "adam"
    """adam, or sgd with Nesterov momentum 0.9; of the student and its connectors."""
    learning_rate: float = 1e-3
    """Peak learning rate of the student: linear warm-up over 5 % of the run, then cosine to 0."""
    opponent_learning_rate: float = 3e-3
    """Peak learning rate of the other players, such as a discriminator (Adam, β₁ = 0.5)."""
    weight_decay: float = 0.0
    """Decoupled weight decay of the student."""
    augment: AugmentName = "none"
    """Random views of every sample: none, shift, crop-flip or affine."""
    precision: Precision = "auto"
    """auto (bf16 where the hardware has it), float32 or bf16."""
    device: str = "auto"
    """auto (the GPU when there is one), cpu or cuda."""
    seed: int = 0
    """Of first weights, of what is asked, of the order of samples, augmentation, matched noise."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; by default ten in a run."""

    def check(self) -> None:
        """Raises UserError for a number that no training can run with."""
        limits = {
            "labelled_batch": 1, "answered_batch": 1, "learning_rate": 0,
            "opponent_learning_rate": 0, "weight_decay": 0, "seed": 0, "checkpoint_every": 1,
        }  # fmt: skip
        for name, least in limits.items():
            value = getattr(self, name)
            if value is not None and not least <= value < 2**63:
                option = name.replace("_", "-")
                raise UserError(f"--{option} is {value:g}; it must be at least {least}")


def train(
    student: nn.Module,
    objective: Objective,
    data: TrainingData,
    options: TrainerOptions,
    *,
    normalise: Normalisation,
    folder: Path | None = None,
    resume: bool = False,
    validate: Callable[[nn.Module], float] | None = None,
    note: str = "",
    progress: bool = True,
) -> History:
    """Trains `student` in place, to the last step; returns the curves.

    `folder` receives `checkpoint.safetensors` (at times, and on ctrl-C), `history.json` and
    TensorBoard's scalars; `resume` goes on from that checkpoint, and the weights are those of an
    uninterrupted run. `validate` gives an accuracy on validation samples, called at each
    checkpoint. `note` (the ε spent, say) stands at the progress bar.

    Raises UserError for options of another run on resuming and for a loss that is not finite;
    KeyboardInterrupt on ctrl-C, after the step under way and a checkpoint.
    """
    options.check()
    device = resolve_device(options.device)
    stream = BatchStream(
        data,
        labelled_batch=options.labelled_batch,
        answered_batch=options.answered_batch,
        seed=options.seed,
        device=device,
        normalise=normalise,
        augment=Augment(options.augment),
    )
    steps = options.steps
    if steps is None:
        steps = options.epochs * stream.steps_per_epoch
    if steps < 1:
        raise UserError(f"{steps} training steps; --steps or --epochs must be at least 1")
    if resume and folder is None:
        raise ValueError("to resume, the folder of the checkpoint is needed")
    run = _Run(student, objective, options, steps, device)
    path = None if folder is None else folder / CHECKPOINT
    if resume and path is not None:
        _check_options(path, options)
    every = options.checkpoint_every or max(1, steps // _CHECKPOINTS)
    with ExitStack() as stack:
        stack.enter_context(_forked_random_state(device))
        torch.manual_seed(options.seed)
        done = run.load(path) if resume and path is not None else 0
        interruption = stack.enter_context(Interruption())
        scalars = stack.enter_context(_Scalars(folder, done)) if folder is not None else None
        bar = stack.enter_context(
            tqdm(
                total=steps,
                initial=done,
                disable=not progress,
                mininterval=0.5,
                # No bar: on 80 columns its place is needed for the terms.
                bar_format="{n_fmt}/{total_fmt} {remaining}{postfix}",
            )
        )
        for step in range(done, steps):
            batch = stream.batch(step)
            run.step(step, batch)
            bar.update()
            last = step + 1 == steps
            if last or interruption.asked or (step + 1) % max(1, steps // _HISTORY_ROWS) == 0:
                row = run.row(step, batch)
                bar.set_postfix_str(_postfix(row, note))
                if scalars is not None:
                    scalars.write(step + 1, row)
            if last or interruption.asked or (step + 1) % every == 0:
                if validate is not None:
                    student.eval()
                    run.history.add(step + 1, {"validation_accuracy": validate(student)})
                    student.train()
                if path is not None:
                    run.save(path, step + 1)
            if interruption.asked:
                raise KeyboardInterrupt
    student.eval()
    return run.history


class _Run:
    """The state of one training: what a checkpoint holds."""

    def __init__(
        self,
        student: nn.Module,
        objective: Objective,
        options: TrainerOptions,
        steps: int,
        device: torch.device,
    ) -> None:
        self.options, self.steps, self.device = options, steps, device
        self.student = student.to(device).to(memory_format=torch.channels_last).train()
        self.objective = objective.to(device).train()
        self.history = History()
        self.optimisers = {
            player: make_optimiser(
                [
                    *(student.parameters() if player == STUDENT else ()),
                    *objective.learnables(player),
                ],
                options.optimiser if player == STUDENT else "adversary",
                options.weight_decay if player == STUDENT else 0.0,
            )
            for player in objective.players
        }
        self._view: View | None = None
        self._sums: dict[str, Tensor] = {}
        self._counted = 0
        self._images = 0
        self._since = time.perf_counter()

    def step(self, step: int, batch: Batch) -> None:
        """One forward pass and a turn of each player; nothing waits for the device."""
        with autocast(self.device, self.options.precision):
            view = self.objective.observe(self.student, batch)
        for player, optimiser in self.optimisers.items():
            peak = (
                self.options.learning_rate
                if player == STUDENT
                else self.options.opponent_learning_rate
            )
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(peak, step, self.steps)
            with self.objective.turn_of(player):
                losses = self.objective.losses(player, view, batch)
                optimiser.zero_grad(set_to_none=True)
                torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            for name, loss in losses.items():
                self._sums[name] = self._sums.get(name, 0) + loss.detach()
        self._view = view
        self._counted += 1
        self._images += len(batch)

    def row(self, step: int, batch: Batch) -> dict[str, float]:
        """Means since the last row, and the last batch's measures; waits for the device."""
        assert self._view is not None
        logits = self._view.logits.detach()
        values = {name: total / self._counted for name, total in self._sums.items()}
        known = batch.all_labels >= 0
        hits = (logits.argmax(dim=1) == batch.all_labels) & known
        values["training_accuracy"] = hits.sum() / known.sum().clamp(min=1)
        values.update(self._measures(batch))
        row = {name: float(value) for name, value in values.items()}
        broken = [name for name, value in row.items() if value - value != 0]
        if broken:
            raise UserError(
                f"{broken[0]!r} is no longer finite at step {step + 1}; lower --learning-rate "
                "or the term's weight"
            )
        self.history.add(step + 1, row)
        elapsed = time.perf_counter() - self._since
        row["images_per_second"] = self._images / max(elapsed, 1e-9)
        self._sums, self._counted, self._images = {}, 0, 0
        self._since = time.perf_counter()
        return row

    def _measures(self, batch: Batch) -> dict[str, Tensor]:
        """Looking changes nothing: neither random state nor buffers, so that runs stay equal."""
        assert self._view is not None
        self.objective.eval()
        with _forked_random_state(self.device):
            measured = self.objective.measures(self._view, batch)
        self.objective.train()
        return measured

    def save(self, path: Path, done: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "step": done,
            "options": asdict(self.options),
            "history": self.history.to_json(),
        }
        modules = {"student": self.student, "objective": self.objective}
        save_checkpoint(path, modules, self.optimisers, state, self.device)
        (path.parent / "history.json").write_text(json.dumps(self.history.to_json()) + "\n")

    def load(self, path: Path) -> int:
        modules = {"student": self.student, "objective": self.objective}
        state = load_checkpoint(path, modules, self.optimisers, self.device)
        self.history = History.from_json(state["history"])
        return int(state["step"])


class _Scalars:
    """TensorBoard's event file of a run."""

    def __init__(self, folder: Path, done: int) -> None:
        # Takes more than a second to import.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def write(self, step: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)

    def __enter__(self) -> "_Scalars":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def _forked_random_state(device: torch.device) -> AbstractContextManager[None]:
    """Within, random draws leave the process's own generators as they were."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def _check_options(path: Path, options: TrainerOptions) -> None:
    """A checkpoint goes on under the options it was made with, or the weights would differ."""
    made: dict[str, Any] = checkpoint_state(path)["options"]
    # Where and how often, not what: these may change.
    free = {"device", "checkpoint_every"}
    for name, value in asdict(options).items():
        if name not in free and made.get(name) != value:
            raise UserError(
                f"{path} was made with --{name.replace('_', '-')} {made.get(name)}, now {value}; "
                "resume with the same options, or train into another folder"
            )


def _postfix(row: Mapping[str, float], note: str) -> str:
    """Note, speed, then the terms, the student's first: what 80 columns cut off matters least."""
    shown = [name for name in row if not name.endswith("accuracy") and name != "images_per_second"]
    # Players are listed as they move, the student last.
    terms = [f"{name} {row[name]:.2g}" for name in reversed(shown)]
    return " ".join([*([note] if note else []), f"{row['images_per_second']:.0f} images/s", *terms])
