"""Several processes train one student: the steps of one process, whoever dies on the way."""

import os
import shutil
import signal
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ktan import sharding
from ktan.batch_norm import normalise_together
from ktan.checkpoint import checkpoint_state
from ktan.errors import ProcessLost, UserError
from ktan.parallel import ONE, Group, group_of
from ktan.pupil import Pupil
from ktan.ranks import Ranks
from ktan.trainer import CHECKPOINT, TrainerOptions, train_together
from ktan.training_data import TrainingData
from tests.ktan.test_training_together import NORMALISE, OPTIONS, data, images, lessons, live

CPU = torch.device("cpu")
Found = dict[str, Tensor]
SETTINGS = replace(OPTIONS, steps=6, optimiser="sgd", learning_rate=0.02)
SHORT_RONA = {"adversarial_weight": 1.0, "rounds": 1, "self_epochs": 0, "warm_up_epochs": 0}


def together(
    count: int, work: Callable[[Group], Found], place: Path, codes: tuple[int, ...] | None = None
) -> list[Found]:
    """What `work` gives in each of `count` processes that are one group."""
    place.mkdir()
    children = [_forked(Ranks(rank, count), work, place) for rank in range(count)]
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert tuple(ended) == (codes or (0,) * count)
    return [
        torch.load(place / f"{rank}.pt") if code == 0 else {} for rank, code in enumerate(ended)
    ]


def _forked(ranks: Ranks, work: Callable[[Group], Found], place: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        with Group(ranks).open(f"file://{place}/meeting") as group:
            torch.save(work(group), place / f"{ranks.rank}.pt")
        code = 0
    except KeyboardInterrupt:
        code = 130
    except ProcessLost:
        code = 3
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def trained(
    name: str, options: TrainerOptions, group: Group = ONE, folder: Path | None = None, **given
) -> Found:
    """A student's weights after its training by one method, and its curves' last points."""
    teacher = live()
    settings = SHORT_RONA if name == "rona" else {}
    made = lessons(teacher, (name,), folder, settings)
    material: TrainingData = data(teacher)
    if made[0].objective.unlabelled:
        material = replace(material, unlabelled=images(32, 3)[0])
    (history,) = train_together(
        made, material, options, normalise=NORMALISE, progress=False, group=group, **given
    )
    last = {curve: torch.tensor(history.last(curve)) for curve in history.curves}
    return {**made[0].student.state_dict(), **last}


def furthest(one: Found, other: Found) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def dying(monkeypatch, rank: int, step: int, by: signal.Signals) -> None:
    """Processes that are forked from now on: that one gets a signal as it takes its step."""
    taken: list[int] = []
    step_before = Pupil.step

    def counted(pupil: Pupil, *arguments: object) -> None:
        taken.append(1)
        if pupil._group.count > 1 and pupil._group.ranks.rank == rank and len(taken) == step:
            os.kill(os.getpid(), by)
        step_before(pupil, *arguments)

    monkeypatch.setattr(Pupil, "step", counted)


# Between them: bounded gradients, batch norm on maps and on vectors, early exits, three games with
# their discriminators' rest, unlabelled views, and two stages.
SHARED = ("kd-svd", "ksanc", "byot", "rona", "meal", "fixmatch", "fitnet-two-stage")


def test_two_processes_take_the_steps_of_one(tmp_path):
    def work(group: Group) -> Found:
        return {
            f"{name} {key}": value
            for name in SHARED
            for key, value in trained(name, SETTINGS, group).items()
        }

    one, other = together(2, work, tmp_path / "two")
    assert furthest(one, other) == 0
    alone = work(ONE)
    assert furthest(one, alone) < 1e-4
    # Half of each step's samples make another student.
    half = {
        f"{name} {key}": value
        for name in SHARED
        for key, value in trained(
            name, replace(SETTINGS, answered_batch=SETTINGS.answered_batch // 2)
        ).items()
    }
    assert furthest(one, half) > 1e-2


def test_a_student_that_is_spread_is_the_same(tmp_path, monkeypatch):
    # Every layer of this small one by itself.
    monkeypatch.setattr(sharding, "_WORTH_A_SHARD", 1)
    settings = replace(SETTINGS, optimiser="adam", learning_rate=1e-3)
    sharded = replace(settings, shard=True)

    def work(group: Group) -> Found:
        found = trained("fitnet", sharded, group)
        # The same in two parts: weights and moments are put together, and spread again.
        with pytest.MonkeyPatch.context() as patch:
            dying(patch, 1, 3, signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                trained("fitnet", sharded, group, tmp_path / "kept")
        again = trained("fitnet", sharded, group, tmp_path / "kept", resume=True)
        assert furthest(found, again) == 0
        return found

    one, other = together(2, work, tmp_path / "two")
    alone = trained("fitnet", settings)
    assert furthest(one, other) == 0
    assert furthest(one, alone) < 1e-3
    # The checkpoint of spread processes is any process's.
    (tmp_path / "kept" / "fitnet" / CHECKPOINT).rename(tmp_path / CHECKPOINT)
    (tmp_path / "alone" / "fitnet").mkdir(parents=True)
    (tmp_path / CHECKPOINT).rename(tmp_path / "alone" / "fitnet" / CHECKPOINT)
    assert furthest(one, trained("fitnet", settings, ONE, tmp_path / "alone", resume=True)) == 0


@pytest.mark.parametrize(
    ("rank", "by", "codes"),
    [(0, signal.SIGKILL, (-9, 3)), (1, signal.SIGKILL, (3, -9)), (1, signal.SIGTERM, (130, 130))],
    ids=["the first is killed", "the second is killed", "the second is told to end"],
)
def test_who_dies_is_noticed_and_the_run_goes_on(tmp_path, monkeypatch, rank, by, codes):
    options = replace(SETTINGS, checkpoint_every=1)
    whole = trained("ksanc", options)
    with monkeypatch.context() as patched:
        dying(patched, rank, 4, by)
        together(2, lambda group: trained("ksanc", options, group, tmp_path), tmp_path / "a", codes)
    told = by == signal.SIGTERM
    assert checkpoint_state(tmp_path / "ksanc" / CHECKPOINT)["step"] == (4 if told else 3)
    # With two processes, and with one.
    for count in (2, 1):
        shutil.copytree(tmp_path / "ksanc", tmp_path / f"{count}" / "ksanc")

    def on(group: Group) -> Found:
        folder = tmp_path / f"{group.count}"
        return trained("ksanc", options, group, folder, resume=True)

    assert furthest(whole, together(2, on, tmp_path / "b")[0]) < 1e-4
    assert furthest(whole, on(ONE)) < 1e-4


def test_batches_that_cannot_be_shared_are_refused():
    with pytest.raises(UserError, match="10 answered samples, which 4 processes cannot share"):
        Group(Ranks(0, 4)).share(10, "answered")
    assert Group(Ranks(1, 4)).share(8, "answered") == slice(2, 4)


def test_what_several_processes_cannot_do_is_refused(tmp_path):
    def work(group: Group) -> Found:
        for name, options, text in (
            ("local", replace(SETTINGS, compile=True), "--compile is for one process"),
            ("local", replace(SETTINGS, shard=True, precision="fp16"), "without fp16"),
            ("kd-svd", replace(SETTINGS, shard=True), "does not go with the term 'relations'"),
            ("fixmatch", replace(SETTINGS, unlabelled_batch=5), "5 unlabelled samples"),
        ):
            with pytest.raises(UserError, match=text):
                trained(name, options, group)
        with pytest.raises(UserError, match="do not begin with the same checkpoint"):
            group.require_same([group.ranks.rank], "checkpoint")
        return {}

    together(2, work, tmp_path / "two")


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_batch_norm_over_a_group_is_that_of_the_whole_batch(tmp_path, kind):
    torch.manual_seed(0)
    samples = (3 + 2 * torch.randn(8, 3, 4, 4)).to(kind)
    weights = torch.randn(8, 3, 4, 4)

    def normed(group: Group) -> Found:
        layer = nn.Sequential(nn.BatchNorm2d(3))
        nn.init.constant_(layer[0].weight, 1.5)
        normalise_together(layer, group, CPU)
        share = group.share(8, "")
        own = samples[share].clone().requires_grad_()
        found = layer(own)
        (found.float() * weights[share]).sum().backward()
        learnt = [parameter.grad for parameter in layer.parameters()]
        group.average(learnt)
        return {
            "found": found.detach(),
            "gradient": own.grad,
            **{f"learnt {n}": value * group.count for n, value in enumerate(learnt)},
            **layer.state_dict(),
        }

    parts = together(2, normed, tmp_path / "two")
    whole = normed(ONE)
    tolerance = 1e-5 if kind == torch.float32 else 0.05
    for name, value in whole.items():
        if name in ("found", "gradient"):
            both = torch.cat([part[name] for part in parts])
        else:
            both = parts[0][name]
        assert torch.allclose(both.float(), value.float(), rtol=tolerance, atol=tolerance), name


def test_torchruns_environment_says_who_is_who():
    environment = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    group = group_of(environment)
    assert (group.ranks, group.count, group.leads, group.restarted) == (
        Ranks(3, 4, 1, 2), 4, False, False,
    )  # fmt: skip
    assert group_of({**environment, "TORCHELASTIC_RESTART_COUNT": "1"}).restarted
    assert group_of({}) is ONE
    with pytest.raises(UserError, match="not all numbers"):
        group_of({**environment, "RANK": "x"})
