"""The one training loop: drives any objectives, any number of optimisers, in alternation.

A step is one forward pass of a student, then a turn for each of its objective's players, the
student last. The loop knows no method by name, and no teacher: answers are data. Several students
may be trained together, on the same batches and the same answers; each ends as if it were alone.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from torch import nn
from tqdm import tqdm

from ktan.data import Augment, Normalisation
from ktan.errors import UserError
from ktan.history import History
from ktan.interruption import Interruption
from ktan.methods.objective import Objective
from ktan.parallel import ONE, Group
from ktan.precision import resolve_device
from ktan.pupil import CHECKPOINT, Lesson, Pupil, postfix
from ktan.schedule import StagePlan
from ktan.trainer_options import TrainerOptions
from ktan.training_data import BatchStream, TrainingData

__all__ = ["CHECKPOINT", "Lesson", "TrainerOptions", "train", "train_together"]

_HISTORY_ROWS = 100
_CHECKPOINTS = 10

Ask = Callable[[int, nn.Module], TrainingData]
"""Called before a stage that asks: how many further portions of the queries are now due, and the
student; returns all data from then on. A portion that was chosen before is not chosen again."""


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
    ask: Ask | None = None,
    note: str = "",
    progress: bool = True,
    group: Group = ONE,
) -> History:
    """Trains `student` in place, to the last step; returns the curves.

    `folder` receives `checkpoint.safetensors` (at times, and on ctrl-C), `history.json` and
    TensorBoard's scalars; `resume` goes on from that checkpoint, and the weights are those of an
    uninterrupted run. `validate` gives an accuracy on validation samples, called at each
    checkpoint. `ask` brings further answers for the stages that ask; without it all answers are
    taken to be there. `note` (the ε spent, say) stands at the progress bar. `group`: processes that
    call this alike and share each step; the first one writes and shows.

    Raises UserError for options of another run on resuming and for a loss that is not finite;
    KeyboardInterrupt on ctrl-C, after the step under way and a checkpoint.
    """
    lesson = Lesson(student, objective, folder, validate, note)
    (history,) = train_together(
        [lesson], data, options, normalise=normalise, resume=resume, ask=ask, progress=progress,
        group=group,
    )  # fmt: skip
    return history


def train_together(
    lessons: Sequence[Lesson],
    data: TrainingData,
    options: TrainerOptions,
    *,
    normalise: Normalisation,
    resume: bool = False,
    ask: Ask | None = None,
    progress: bool = True,
    group: Group = ONE,
) -> list[History]:
    """Trains several students on the same batches; see `train`.

    Samples are augmented once a step, and a live teacher is asked once, for all of them. `resume`
    takes up each student that has a checkpoint where it stood. `ask` is for one student alone.
    """
    options.check()
    device = group.device(resolve_device(options.device))
    if resume and any(lesson.folder is None for lesson in lessons):
        raise ValueError("to resume, the folder of the checkpoint is needed")
    if ask is not None and len(lessons) > 1:
        raise ValueError("queries are chosen by one student; train such students one by one")

    def batches(data: TrainingData) -> BatchStream:
        return BatchStream(
            data,
            labelled_batch=options.labelled_batch,
            answered_batch=options.answered_batch,
            unlabelled_batch=options.unlabelled_batch,
            seed=options.seed,
            device=device,
            normalise=normalise,
            augment=Augment(options.augment),
            data_on=options.data_on,
            group=group,
        )

    stream = batches(data)
    steps = options.steps
    if steps is None:
        steps = options.epochs * stream.steps_per_epoch
    if steps < 1:
        raise UserError(f"{steps} training steps; --steps or --epochs must be at least 1")
    plans = [StagePlan(lesson.objective.stages, steps) for lesson in lessons]
    every = options.checkpoint_every or max(1, steps // _CHECKPOINTS)
    asked = 0
    with ExitStack() as stack:
        pupils = []
        for lesson in lessons:
            begun = resume and (len(lessons) == 1 or _has_checkpoint(lesson))
            # Graphs keep their results until they run again: those of one student alone.
            alone = len(lessons) == 1
            pupils.append(Pupil(lesson, options, device, resume=begun, graphs=alone, group=group))
            stack.callback(pupils[-1].close)
        interruption = stack.enter_context(Interruption())
        done = min(pupil.done for pupil in pupils)
        bar = stack.enter_context(
            tqdm(
                total=steps,
                initial=done,
                disable=not (progress and group.leads),
                mininterval=0.5,
                # No bar: on 80 columns its place is needed for the terms.
                bar_format="{n_fmt}/{total_fmt} {remaining}{postfix}",
            )
        )
        for step in range(done, steps):
            if ask is not None and plans[0].asked(step) > asked:
                asked = plans[0].asked(step)
                if pupils[0].done < step:
                    # Asking may fail, or be cut off: what came before is not done again.
                    pupils[0].save(step)
                stream = batches(ask(asked, pupils[0].whole_student()))
            batch = stream.batch(step)
            last = step + 1 == steps
            for plan, pupil in zip(plans, pupils, strict=True):
                if pupil.done <= step:
                    pupil.step(plan.at(step), batch)
            bar.update()
            cut = group.any(interruption.asked)
            for pupil in pupils:
                if pupil.done > step:
                    continue
                if last or cut or (step + 1) % max(1, steps // _HISTORY_ROWS) == 0:
                    row = pupil.row(step + 1, batch)
                    if len(pupils) == 1:
                        bar.set_postfix_str(postfix(row, pupil.lesson.note))
                    else:
                        bar.set_postfix_str(_together(row, len(pupils)))
                if last or cut or (step + 1) % every == 0:
                    pupil.validate(step + 1)
                    pupil.save(step + 1)
            if cut:
                raise KeyboardInterrupt
        for pupil in pupils:
            pupil.whole_student().eval()
    return [pupil.history for pupil in pupils]


def _has_checkpoint(lesson: Lesson) -> bool:
    return lesson.folder is not None and (lesson.folder / CHECKPOINT).exists()


def _together(row: dict[str, float], count: int) -> str:
    return f"{count} students, {row['images_per_second']:.0f} images/s each"
