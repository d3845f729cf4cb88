"""Trains k teachers on k disjoint shards, many at once, without coupling them.

Teachers are trained in *stacks* (stack_run.py), each stack to its end, as many stacks at once as
there are cores, and by as many processes as there are ranks (ranks.py). A diverged teacher stays
diverged and answers zeros; an empty shard's teacher has no weights (NaN) and answers zeros, too.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ktan.data.split import Indices
from ktan.errors import UserError
from ktan.ranks import ALONE, Ranks, waited
from ktan.teachers.stack import Stack, State, new_states, state_slice
from teacher_server.training.recipe import EnsembleRecipe, seed_of
from teacher_server.training.stack_run import Learner, StackRun
from teacher_server.training.stack_state import step_of

_CHECKPOINTS = 10
"""States that a stack leaves on its way: what a killed process loses at most is a tenth of one."""


def train_ensemble(
    samples: Tensor,
    labels: Tensor,
    shards: Sequence[Indices],
    recipe: EnsembleRecipe,
    *,
    device: torch.device,
    start: State | None = None,
    folder: Path | None = None,
    ranks: Ranks = ALONE,
    whole: bool = True,
    stopping: Callable[[], bool] = lambda: False,
    on_step: Callable[[int], None] = lambda _teachers: None,
) -> State:
    """k trained networks as one state, name → [k, ...] on the CPU.

    `samples` [N, ...] and `labels` int64 [N] (-1: no label, not learnt from); `shards`: positions
    of each teacher's records. `start`: a public network without the leading k, that all teachers
    begin as; fresh ones otherwise. `folder` keeps the states of stacks, and an earlier, interrupted
    call with the same recipe goes on from there, to the same weights. `ranks`: which stacks are
    this process's; those of other ranks are waited for in `folder`, or, unless the state is to be
    `whole`, left out. `stopping` is asked after each step; when it says yes, states are saved and
    KeyboardInterrupt is raised.
    """
    # Here and not in the threads, which share one random state.
    if start is None:
        first = new_states(recipe.spec, [seed_of(recipe.seed, i) for i in range(len(shards))])
    else:
        first = {name: value.expand(len(shards), *value.shape) for name, value in start.items()}
    return train_stacks(
        Stack(recipe.spec, (), device), first, samples, labels, shards, recipe, device=device,
        folder=folder, ranks=ranks, whole=whole, stopping=stopping, on_step=on_step,
    )  # fmt: skip


def train_stacks(
    network: Learner,
    first: State,
    samples: Tensor,
    labels: Tensor,
    shards: Sequence[Indices],
    recipe: EnsembleRecipe,
    *,
    device: torch.device,
    folder: Path | None = None,
    name: str = "stack",
    ranks: Ranks = ALONE,
    whole: bool = True,
    stopping: Callable[[], bool] = lambda: False,
    on_step: Callable[[int], None] = lambda _teachers: None,
) -> State:
    """k trained learners from their `first` states, name → [k, ...]; see `train_ensemble`.

    `name`: of the files in `folder`, NAME-0000.safetensors and so on. Nothing is left of the k
    where the state need not be `whole` and no stack is this rank's: the empty state.
    """
    # Networks with running statistics cannot share a stack; they are trained one after another.
    height = 1 if network.has_buffers else recipe.stack
    groups = [range(i, min(i + height, len(shards))) for i in range(0, len(shards), height)]
    samples, labels = samples.to(device), labels.to(device)
    gone = threading.Event()
    # Dropout draws from torch's one random state: in threads, who draws what would depend on how
    # long other teachers' steps take.
    random = network.is_random()
    every = max(1, recipe.steps // _CHECKPOINTS)
    fingerprint = recipe.fingerprint()

    def file(number: int) -> Path | None:
        return None if folder is None else folder / f"{name}-{number:04d}.safetensors"

    def run_of(number: int) -> StackRun:
        group = groups[number]
        own = state_slice(first, slice(group.start, group.stop))
        run = StackRun(network, recipe, group, [shards[i] for i in group], own, device)
        path = file(number)
        if path is not None and path.exists():
            # What stands in `first` beside the parameters decides, not what stood there once.
            run.state.load(path, fingerprint, frozen=not network.has_buffers)
        return run

    def train_group(number: int) -> State:
        run, path = run_of(number), file(number)
        while run.state.step < recipe.steps:
            with torch.random.fork_rng(enabled=random):
                if random:
                    torch.manual_seed(seed_of(recipe.seed, groups[number].start, run.state.step, 1))
                run.step(samples, labels)
            on_step(len(groups[number]))
            asked = stopping() or gone.is_set()
            last = run.state.step == recipe.steps
            if path is not None and (asked or last or run.state.step % every == 0):
                run.state.save(path, fingerprint)
            if asked:
                raise KeyboardInterrupt
        return run.finished()

    def others(number: int) -> State | None:
        """What another rank has made, once it is there."""
        path = file(number)
        if path is None or not path.parent.exists():
            raise UserError(
                "the folder with the other ranks' stacks is gone: another process has finished or "
                "deleted this training; see whether the teacher is there, or train anew"
            )
        if not path.exists() or step_of(path) < recipe.steps:
            return None
        run = run_of(number)
        return run.finished() if run.state.step == recipe.steps else None

    own = [number for number in range(len(groups)) if ranks.owns(number)]
    if device.type == "cpu" and not random and len(groups) > 1:
        # By the number of all stacks, not of this rank's: each is computed on one core, whoever
        # computes it, so that every number of ranks gets the same bits.
        trained = _in_threads(train_group, own, ranks.cores(), gone)
    else:
        trained = [train_group(number) for number in own]
    parts = dict(zip(own, trained, strict=True))
    for number, group in enumerate(groups):
        if whole and number not in parts:
            parts[number] = waited(partial(others, number), stopping)
            on_step(len(group) * recipe.steps)
    ordered = [parts[number] for number in sorted(parts)]
    if not ordered:
        return {}
    return {key: torch.cat([part[key] for part in ordered]) for key in ordered[0]}


def _in_threads(
    work: Callable[[int], State], numbers: Sequence[int], workers: int, gone: threading.Event
) -> list[State]:
    """Runs `work` of each number in threads that each compute on one core."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=lambda: torch.set_num_threads(1)) as pool:
            futures = [pool.submit(work, number) for number in numbers]
            try:
                return [future.result() for future in futures]
            except BaseException:
                gone.set()
                for future in futures:
                    future.cancel()
                raise
    finally:
        torch.set_num_threads(before)
