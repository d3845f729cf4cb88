"""Several processes train one ensemble: the same bytes as one, whoever dies on the way."""

import dataclasses
import json
import os
import signal
import traceback
from pathlib import Path

import pytest
import torch

from ktan.data import DataSource, split
from ktan.errors import UserError
from ktan.ranks import Ranks
from privacy.errors import LedgerMismatch
from teacher_server.opening import open_ledger, reopen_ledger
from teacher_server.training import TeacherOptions, stack_run
from teacher_server.training.ensemble import train_ensemble
from teacher_server.training.shards import train_rank, train_shards
from teacher_server.training.start import reference_state
from teacher_server.training.unfinished import Unfinished
from teacher_server.training.work import plan_work
from teacher_server.under_ledger import train_under_ledger
from tests.teacher_server.training.conftest import PLAN, RECIPE
from tests.teacher_server.training.test_ensemble import CPU, DROPOUT, IMAGES, TABLE, K, records

NORMED = dataclasses.replace(
    TABLE, spec=dataclasses.replace(DROPOUT.spec, name=DROPOUT.spec.name[:-7] + "running_mean")
)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("recipe", "count"),
    [(TABLE, 2), (TABLE, 5), (IMAGES, 3), (DROPOUT, 2), (NORMED, 4)],
    ids=["table, 2", "table, 5", "images, 3", "dropout, 2", "one by one, 4"],
)
def test_any_number_of_ranks_makes_the_same_teachers(tmp_path, recipe, count):
    recipe = dataclasses.replace(recipe, stack=2, steps=4)
    samples, labels, shards = records(recipe)
    alone = train_ensemble(samples, labels, shards, recipe, device=CPU)
    taken = []
    for rank in reversed(range(count)):
        found = train_ensemble(
            samples, labels, shards, recipe, device=CPU, folder=tmp_path,
            ranks=Ranks(rank, count), whole=rank == 0, on_step=taken.append,
        )  # fmt: skip
    assert same(alone, found)
    # Each step was taken once, and rank 0 counts those of the others as it finds them.
    height = 1 if recipe.spec == NORMED.spec else 2
    others = sum(height for stack in range(K // height) if stack % count)
    assert sum(taken) == (K + others) * recipe.steps


def test_a_rank_trains_its_own_stacks_only(tmp_path):
    recipe = dataclasses.replace(TABLE, stack=2)
    samples, labels, shards = records(recipe)
    alone = train_ensemble(samples, labels, shards, recipe, device=CPU)
    own = train_ensemble(
        samples, labels, shards, recipe, device=CPU, folder=tmp_path, ranks=Ranks(1, 3),
        whole=False,
    )  # fmt: skip
    assert same(own, {name: value[2:4] for name, value in alone.items()})
    assert [path.name for path in tmp_path.iterdir()] == ["stack-0001.safetensors"]


def test_another_number_of_ranks_goes_on_with_what_was_left(tmp_path):
    recipe = dataclasses.replace(TABLE, stack=2)
    samples, labels, shards = records(recipe)
    alone = train_ensemble(samples, labels, shards, recipe, device=CPU)
    steps = 0

    def dies(_teachers):
        nonlocal steps
        steps += 1
        if steps == 10:  # of 12, without a word: what was saved on the way is all there is
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train_ensemble(
            samples, labels, shards, recipe, device=CPU, folder=tmp_path, ranks=Ranks(1, 3),
            on_step=dies,
        )  # fmt: skip
    taken = []
    for rank in (1, 0):
        found = train_ensemble(
            samples, labels, shards, recipe, device=CPU, folder=tmp_path, ranks=Ranks(rank, 2),
            whole=rank == 0, on_step=lambda teachers, rank=rank: taken.append((rank, teachers)),
        )  # fmt: skip
    assert same(alone, found)
    assert len([rank for rank, _ in taken if rank == 1]) < 4  # of its stack's 12 steps


class Host:
    """A data set and its ledger, and processes that train on them."""

    options = TeacherOptions(
        teachers=5, stack=2, epochs=2, reference_steps=20, tsl_steps=5, augment="none",
        taps=("logits", "hint=features:4", "tsl=features.3:4"), device="cpu",
        network_set=("channels=[4,8]", "width=16"),
    )  # fmt: skip
    files = ("weights.safetensors", "alignment.safetensors", "tsl.safetensors")

    def __init__(self, place):
        self.place = place
        self.source = DataSource("fake", place / "data", size=1000)
        dataset = self.source.load()
        self.ledger = place / "ledger"
        plan = dataclasses.replace(PLAN, training=(), answer_units=1, draws=1)
        open_ledger(dataset, split(dataset, RECIPE), plan, self.ledger, None, None).close()

    def train(self, name, ranks=None, **changes):
        options = dataclasses.replace(self.options, **changes)
        return train_under_ledger(
            self.source, RECIPE, options, self.ledger, None, self.place / name, resume=False,
            ranks=ranks,
        )  # fmt: skip

    def start(self, name, ranks, *, dies_at=None, by=signal.SIGKILL):
        """A process that trains as `ranks` says, and in its step `dies_at` gets the signal `by`."""
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            torch.set_num_threads(1)
            if dies_at is not None:
                _signal_at(dies_at, by)
            self.train(name, ranks)
            code = 0
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def content(self, name, files=files):
        return [(self.place / name / file).read_bytes() for file in files]


def _signal_at(number, signal_number):
    step, taken = stack_run.StackRun.step, []

    def counted(run, samples, labels):
        taken.append(1)
        if len(taken) == number:
            os.kill(os.getpid(), signal_number)
        step(run, samples, labels)

    stack_run.StackRun.step = counted


def code_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_processes_that_die_and_come_again_make_what_one_process_makes(tmp_path):
    """Rank 1 of 3 is killed, so that whoever started them ends the others; then there are 2."""
    host = Host(tmp_path)
    host.train("alone")
    kept = tmp_path / "many.partial"
    # Rank 0 trains the public reference of 20 steps first, and its layer in 5.
    first = [
        host.start("many", Ranks(0, 3), dies_at=25 + 4, by=signal.SIGTERM),
        host.start("many", Ranks(1, 3), dies_at=7),
        host.start("many", Ranks(2, 3), dies_at=5, by=signal.SIGTERM),
    ]
    assert [code_of(child) for child in first] == [130, -signal.SIGKILL, 130]
    left = {path.name for path in kept.iterdir()}
    assert {"stack-0000.safetensors", "stack-0001.safetensors", "stack-0002.safetensors"} <= left
    version = Unfinished.version_at(tmp_path / "many")
    second = [host.start("many", Ranks(rank, 2)) for rank in (1, 0)]
    assert [code_of(child) for child in second] == [0, 0]
    assert host.content("many") == host.content("alone")
    assert not kept.exists()
    assert f'"{version}"' in (tmp_path / "many" / "card.json").read_text()
    with reopen_ledger(host.ledger, None, read_only=True) as ledger:
        assert [entry.kind for entry in ledger.entries()] == ["open"]
    # The same command after the end: rank 0 overwrites nothing, the others have nothing to do.
    host.train("many", Ranks(1, 2))
    with pytest.raises(UserError, match="not empty"):
        host.train("many", Ranks(0, 2))


def test_a_rank_joins_no_training_but_its_own(tmp_path):
    host = Host(tmp_path)
    work = {"network": "cnn-small", "seed": 1}
    assert Unfinished.joined(tmp_path / "t", work) is None
    begun = Unfinished.open(tmp_path / "t", work | {"ledger": "ab"}, resume=False)
    assert Unfinished.joined(tmp_path / "t", work) == begun
    with pytest.raises(UserError, match=r"other settings \(.*taps.*\)"):
        host.train("t", Ranks(1, 2))


def test_a_rank_with_other_unit_ids_or_another_ledgers_data_is_refused(tmp_path):
    host = Host(tmp_path)
    dataset = host.source.load()
    parts = split(dataset, RECIPE)
    settings = plan_work(dataset, parts, host.options).identity()
    # As many units, of which other ones share a shard.
    other = dataclasses.replace(dataset, unit_ids=dataset.unit_ids[::-1].copy())
    Unfinished.open(tmp_path / "t", settings | {"ledger": "ff" * 16}, resume=False)
    with pytest.raises(UserError, match=r"other settings \(private_ids\)"):
        train_rank(other, parts, host.options, tmp_path / "t", Ranks(1, 2))
    with pytest.raises(LedgerMismatch):
        train_rank(dataset, parts, host.options, tmp_path / "t", Ranks(1, 2))


def test_a_teacher_that_was_written_before_the_end_came_is_finished(tmp_path, monkeypatch):
    host, taps = Host(tmp_path), ("logits",)
    with monkeypatch.context() as patched:
        patched.setattr(Unfinished, "discard", killed)
        with pytest.raises(RuntimeError, match="killed"):
            host.train("t", Ranks(0, 1), taps=taps)
    written = host.content("t", host.files[:1])
    with pytest.raises(UserError, match=r"other settings \(batch\)"):
        host.train("t", Ranks(0, 1), taps=taps, batch=7)
    card = host.train("t", Ranks(0, 1), taps=taps)
    assert card.to_json() == json.loads((tmp_path / "t" / "card.json").read_text())
    assert host.content("t", host.files[:1]) == written
    assert not (tmp_path / "t.partial").exists()
    # Of another training nothing is overwritten.
    Unfinished.open(tmp_path / "t", {}, resume=False)
    with pytest.raises(UserError, match="not empty"):
        host.train("t", Ranks(0, 1), taps=taps)


def killed(_unfinished):
    raise RuntimeError("killed")


def test_nobody_waits_for_the_reference_of_a_training_that_is_gone(tmp_path):
    host = Host(tmp_path)
    dataset = host.source.load()
    work = plan_work(dataset, split(dataset, RECIPE), host.options)
    with pytest.raises(UserError, match="is gone"):
        reference_state(work, Unfinished(tmp_path / "t.partial", "a"), Ranks(1, 2))


def test_states_are_their_owners_alone_from_the_first_byte(tmp_path, monkeypatch):
    modes = []
    replace = Path.replace

    def looked_at(path, target):
        modes.append(path.stat().st_mode & 0o777)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", looked_at)
    samples, labels, shards = records(TABLE)
    train_ensemble(samples, labels, shards, TABLE, device=CPU, folder=tmp_path)
    assert set(modes) == {0o600}


def test_stacks_of_an_earlier_training_are_not_taken(tmp_path):
    """A process that outlived the deletion of its folder writes into the next one's."""
    host = Host(tmp_path)
    dataset = host.source.load()
    options = dataclasses.replace(host.options, taps=("logits",))
    work = plan_work(dataset, split(dataset, RECIPE), options)
    train_shards(work, Unfinished(tmp_path, "old"), None, Ranks(1, 2), whole=False, progress=False)
    assert (tmp_path / "stack-0001.safetensors").exists()
    with pytest.raises(UserError, match="other options"):
        train_shards(work, Unfinished(tmp_path, "new"), None, Ranks(0, 2), progress=False)


@pytest.mark.parametrize("mode", ["dp-sgd", "single"])
@pytest.mark.parametrize("rank", [0, 1])
def test_one_teacher_is_not_divided(tmp_path, mode, rank):
    host = Host(tmp_path)
    with pytest.raises(UserError, match=r"without ranks|no DP-SGD run left"):
        host.train("t", Ranks(rank, 2), mode=mode, taps=("probabilities",))
    assert not (tmp_path / "t.partial").exists()


def test_ranks_come_from_options_or_from_torchrun():
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert Ranks.chosen(None, None, {"RANK": "3"}) is None
    assert Ranks.chosen(None, None, torchrun) == Ranks(3, 4, 1, 2)
    assert Ranks.chosen(0, 8, torchrun) == Ranks(0, 8)
    for wrong in ((1, None), (None, 2), (2, 2), (-1, 2), (0, 0)):
        with pytest.raises(UserError, match="--rank"):
            Ranks.chosen(*wrong, {})
    with pytest.raises(UserError, match="not all numbers"):
        Ranks.chosen(None, None, torchrun | {"RANK": "x"})
    assert [number for number in range(7) if Ranks(1, 3).owns(number)] == [1, 4]
